"""The rows of a row group as arrays that batches are gathered from.

R rows, D dense width, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embeddings.features.bags import Bags
from embeddings.features.feature_transforms import Columns


@dataclass(frozen=True)
class Block:
    """Consecutive rows, transformed.

    Attributes:
        bags: the sparse features.
        dense: float32 [R, D].
        labels: float32 [R, T].
        label_weights: float32 [R, T].
        groups: int64 [R], or none.
    """

    bags: tuple[Bags, ...]
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    label_weights: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        rows = self.dense.nbytes + self.labels.nbytes + self.label_weights.nbytes
        groups = 0 if self.groups is None else self.groups.nbytes
        return rows + groups + sum(bags.nbytes for bags in self.bags)

    @staticmethod
    def of(
        columns: Columns,
        names: Sequence[str],
        labels: npt.NDArray[np.float32],
        label_weights: npt.NDArray[np.float32],
        groups: npt.NDArray[np.int64] | None,
    ) -> Block:
        """Transformed columns, features in the order of `names`."""
        bags = tuple(columns.sparse[name] for name in names)
        return Block(bags, columns.dense, labels, label_weights, groups)

    @staticmethod
    def empty(rows: int, features: int, dense_width: int, tasks: int, grouped: bool) -> Block:
        """Rows without IDs, of weight zero, in place of rows that cannot be read."""
        nothing = Bags(np.empty(0, np.int64), np.zeros(rows, np.int32))
        numbers = np.zeros((rows, dense_width), np.float32)
        groups = np.zeros(rows, np.int64) if grouped else None
        return Block((nothing,) * features, numbers, *np.zeros((2, rows, tasks), np.float32), groups=groups)

    def narrow(self, start: int, stop: int) -> Block:
        """Rows [start, stop), viewed."""
        if (start, stop) == (0, len(self)):
            return self
        bags = tuple(bags.narrow(start, stop) for bags in self.bags)
        groups = None if self.groups is None else self.groups[start:stop]
        return Block(bags, self.dense[start:stop], self.labels[start:stop], self.label_weights[start:stop], groups)
