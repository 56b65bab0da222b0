"""Leaves out a batch whose loss is not a number (`training.non_finite: skip`): as if its step had not been.

The ranks agree on it between forward and backward. The gradient of the top's input is then replaced by zeros, on which
the tables' optimizers do not move a row, and the dense optimizer's step is left out. Replaced, not multiplied: zero
times infinity is no number either.
"""

import torch
from torch import Tensor, nn

from trainer.ranks.collectives import max_over_ranks, sum_over_ranks


class BatchCheck:
    """Whether the batch in work has a loss that is a number on all ranks."""

    def __init__(self) -> None:
        self._is_sound: Tensor | None = None
        self._on_host: Tensor | None = None
        self._arrived: torch.cuda.Event | None = None

    def see(self, loss: Tensor) -> Tensor:
        """Takes in this rank's loss []; whether all are finite []. All ranks together."""
        unsound = max_over_ranks((~loss.detach().isfinite()).float())
        self._is_sound = unsound == 0
        if self._is_sound.is_cuda:
            self._on_host = self._is_sound.to("cpu", non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            self._on_host = self._is_sound
        return self._is_sound

    def kept(self, values: Tensor) -> Tensor:
        """`values`, or zeros where the batch is left out."""
        assert self._is_sound is not None, "there is a batch in work"
        return torch.where(self._is_sound, values, torch.zeros_like(values))

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """For what balances exchange in the backward pass, from which they move the tasks' weights."""
        return self.kept(sum_over_ranks(values))

    def is_left_out(self) -> bool:
        """On the host; waits for the forward pass, not for the backward pass behind it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._on_host is not None and not bool(self._on_host)


class Shield(nn.Module):
    """x -> x, whose gradient is zero where the batch is left out."""

    def __init__(self, check: BatchCheck) -> None:
        super().__init__()
        self._check = check

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(self._check.kept)
        return x
