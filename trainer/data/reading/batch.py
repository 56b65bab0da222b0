"""A rank's part of a global batch, in the form that TorchRec's train pipelines move to a device.

B rows of this rank (the same on all ranks, padding included), D dense width, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable


@dataclass
class Batch(Pipelineable):
    """Rows for one step.

    Attributes:
        sparse: bags of table rows of every sparse feature, B each; None without sparse features.
        dense: [B, D] float32.
        labels: [B, T] float32; 0 where it is missing.
        label_weights: [B, T] float32; 0 where the label is missing, and in rows that only pad.
        groups: [B] int64, 0 in rows that only pad; None unless the reader was asked for groups.
        row_keys: [B] int64, from which layers draw in training; None where nothing is trained.
        position: epoch, and step of the epoch.
    """

    sparse: KeyedJaggedTensor | None
    dense: torch.Tensor
    labels: torch.Tensor
    label_weights: torch.Tensor
    position: tuple[int, int]
    groups: torch.Tensor | None = None
    row_keys: torch.Tensor | None = None

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """The batch on `device`."""
        return Batch(
            None if self.sparse is None else self.sparse.to(device, non_blocking),
            self.dense.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            self.label_weights.to(device, non_blocking=non_blocking),
            self.position,
            None if self.groups is None else self.groups.to(device, non_blocking=non_blocking),
            None if self.row_keys is None else self.row_keys.to(device, non_blocking=non_blocking),
        )

    def record_stream(self, stream: torch.Stream) -> None:
        """Keeps the memory until `stream` has used it."""
        for part in (self.sparse, self.dense, self.labels, self.label_weights, self.groups, self.row_keys):
            if part is not None:
                part.record_stream(stream)  # pyright: ignore[reportArgumentType]

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from where copies to a GPU overlap with its work."""
        return Batch(
            None if self.sparse is None else self.sparse.pin_memory(),
            self.dense.pin_memory(),
            self.labels.pin_memory(),
            self.label_weights.pin_memory(),
            self.position,
            None if self.groups is None else self.groups.pin_memory(),
            None if self.row_keys is None else self.row_keys.pin_memory(),
        )
