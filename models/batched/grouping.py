"""Tasks that differ in shape or loss are computed group by group: split a dimension by kind, and join it again.

Uses slices only: no index tensor that would have to be moved to a device, saved, or exported.
"""

import itertools
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)


class Grouping(Generic[Key]):
    """Positions 0..len(keys)-1 gathered by equal key, in the order in which the keys first appear."""

    def __init__(self, keys: Sequence[Key]) -> None:
        positions: dict[Key, list[int]] = {}
        for position, key in enumerate(keys):
            positions.setdefault(key, []).append(position)
        self.keys = list(positions)
        self.groups = list(positions.values())
        gathered = list(itertools.chain.from_iterable(self.groups))
        self._inverse = [gathered.index(position) for position in range(len(keys))]

    def split(self, x: Tensor, dim: int) -> list[Tensor]:
        """x of size len(keys) along `dim` -> one tensor a group."""
        return [x] if len(self.groups) == 1 else [_take(x, group, dim) for group in self.groups]

    def join(self, parts: Sequence[Tensor], dim: int) -> Tensor:
        """The inverse of `split`."""
        return parts[0] if len(parts) == 1 else _take(torch.cat(list(parts), dim), self._inverse, dim)


def _take(x: Tensor, positions: list[int], dim: int) -> Tensor:
    """x at `positions` along `dim`, from as few slices as there are runs of neighbours."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and runs[-1][1] == position:
            runs[-1][1] += 1
        else:
            runs.append([position, position + 1])
    slices = [x.narrow(dim, start, end - start) for start, end in runs]
    return slices[0] if len(slices) == 1 else torch.cat(slices, dim)
