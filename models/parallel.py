"""Many small networks of one shape, computed together: a batched linear layer and a stack of them.

The first layer of such a stack belongs to the caller (experts, towers, tops), which can often compute it for several
stacks as one wide product. What the stacks mean is the caller's business too.

Shapes: N networks, B batch.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
}


def activation(name: str) -> nn.Module:
    """The activation that `model.activation` names."""
    return _ACTIVATIONS[name]()


class ParallelLinear(nn.Module):
    """N independent linear layers as one product: x [N, B, in] -> [N, B, out]."""

    def __init__(self, count: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.count, self.in_features, self.out_features = count, in_features, out_features
        self.weight = nn.Parameter(torch.empty(count, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(count, 1, out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every network's weights as nn.Linear(in_features, out_features) would."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.count} x ({self.in_features} -> {self.out_features})"


class ParallelMLP(nn.Module):
    """N multi-layer networks behind their first layer: h [N, B, widths[0]] -> [N, B, widths[-1]].

    `h` is what the first linear layer returned, before its activation. With `activate_output` the last layer ends in
    activation and dropout as the hidden ones do.
    """

    def __init__(
        self, count: int, widths: Sequence[int], activation_name: str, dropout: float = 0.0, *, activate_output: bool
    ) -> None:
        super().__init__()
        self.count, self.widths, self.activate_output = count, tuple(widths), activate_output
        self.activation = activation(activation_name)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.layers = nn.ModuleList(ParallelLinear(count, *pair) for pair in itertools.pairwise(widths))

    @property
    def first_width(self) -> int:
        """Columns of the caller's first layer that belong to all N networks together."""
        return self.count * self.widths[0]

    def from_shared_input(self, columns: Tensor) -> Tensor:
        """As forward, from columns [B, N * widths[0]] of one wide linear layer over an input that all N share."""
        return self(columns.unflatten(1, (self.count, self.widths[0])).transpose(0, 1))

    def forward(self, h: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(self.dropout(self.activation(h)))
        return self.dropout(self.activation(h)) if self.activate_output else h
