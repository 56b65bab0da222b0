"""Layers that draw random numbers, which are functions of the row's key, the layer's name and the column.

No generator: there is no state to save, and the same bits come out on CPU and CUDA, compiled or not, however many
workers share the batch. Whoever makes the batch gives its rows their keys; `share_row_keys` ties the layers of a top to
them. A number has 16 bits, so that shares are rounded to 1 / 65536.

Shapes: B batch, C columns, J = C / 4 numbers of 64 bits that make up a row's C numbers of 16.
"""

import hashlib

import torch
from torch import Tensor, nn

from configs.splitmix import GAMMA, scramble

_BLOCK = 2**15  # numbers of 64 bits that stay in the cache of a core
_LEVELS = 2**16


class RowKeys:
    """The keys of the rows that are in the top, int64 [B]; who trains a top sets them before each forward pass."""

    tensor: Tensor | None = None


class Draw(nn.Module):
    """A layer that draws. Until `share_row_keys` has given it a place in a top, there are no keys."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.constant = RowKeys(), 0

    def starts(self) -> Tensor:
        """int64 [B]: where each row's stream of this layer begins."""
        assert self.keys.tensor is not None, "a top that draws is trained with row keys: models.draws.share_row_keys"
        return self.keys.tensor * GAMMA + self.constant


class Dropout(Draw):
    """nn.Dropout for columns [..., B]: in training a share of the values is zero, and the rest is scaled up."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.threshold = min(round(share * _LEVELS), _LEVELS - 1)
        self.scale = _LEVELS / (_LEVELS - self.threshold)

    def kept(self, x: Tensor) -> Tensor:
        """1 where this batch keeps a value of x [..., B], 0 where it hides it; shape and type of x."""
        kept = _at_least(self.threshold, self.starts(), x.numel() // x.shape[-1])
        return kept.view(torch.uint8).to(x.dtype).view(x.shape)  # a product with bools takes four times as long

    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept(x) * self.scale if self.training and self.threshold else x

    def extra_repr(self) -> str:
        return f"share={self.threshold / _LEVELS:g}"


class Noise(Draw):
    """Adds Gaussian noise to columns [..., B] in training: one of 65536 quantiles, so at most 4.3 deviations."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation
        if deviation:  # a table, as devices differ in the last bits of logarithms and roots
            shares = (torch.arange(_LEVELS, dtype=torch.float64, device="cpu") + 0.5) / _LEVELS
            self.register_buffer("quantiles", torch.special.ndtri(shares).float(), persistent=False)
        self.quantiles: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.deviation:
            return x
        drawn = self.quantiles[_bits(self.starts(), x.numel() // x.shape[-1])].view(x.shape)
        return x + self.deviation * drawn

    def extra_repr(self) -> str:
        return f"deviation={self.deviation:g}"


def share_row_keys(top: nn.Module) -> RowKeys:
    """The row keys that every layer of `top` draws with from now on, each in streams of its own."""
    keys = RowKeys()
    for name, layer in top.named_modules():
        if isinstance(layer, Draw):
            digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
            layer.keys, layer.constant = keys, int.from_bytes(digest, "little", signed=True)
    return keys


def _at_least(threshold: int, starts: Tensor, columns: int) -> Tensor:
    """bool [C, B]: whether a number in 0..65535 is."""
    groups = -(-columns // 4)
    drawn = torch.empty((4, groups, len(starts)), dtype=torch.bool, device=starts.device)
    limit = (threshold - _LEVELS // 2) << 48  # the bits below the upper 16 do not change the comparison
    is_whole = starts.device.type != "cpu" or torch.compiler.is_compiling()
    step = groups if is_whole else max(1, _BLOCK // len(starts))
    for first in range(0, groups, step):
        numbers = _numbers(starts, first, min(first + step, groups))
        for part in range(4):
            drawn[part, first : first + step] = numbers >= limit
            numbers <<= 16
    return drawn.flatten(0, 1)[:columns]


def _bits(starts: Tensor, columns: int) -> Tensor:
    """int64 [C, B] in 0..65535; in the order of `_at_least`."""
    numbers = _numbers(starts, 0, -(-columns // 4))
    return torch.cat([((numbers >> shift) & _LEVELS - 1) ^ _LEVELS // 2 for shift in (48, 32, 16, 0)])[:columns]


def _numbers(starts: Tensor, first: int, stop: int) -> Tensor:
    """int64 [stop - first, B]: numbers `first` to `stop` of each row's stream."""
    places = torch.arange(first, stop, device=starts.device) * GAMMA
    return scramble(starts + places.unsqueeze(1))
