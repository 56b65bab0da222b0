"""The rows of a row group as arrays that batches are gathered from.

R rows, N IDs of one feature, D dense width, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embeddings.features.arrow import one_each
from embeddings.features.feature_transforms import Columns, Ragged


@dataclass(frozen=True)
class Bags:
    """IDs of one feature.

    Attributes:
        values: int64 [N].
        lengths: int32 [R]; None when every row has one ID.
        weights: float32 [N], or none.
    """

    values: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32] | None
    weights: npt.NDArray[np.float32] | None

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """int64 [R + 1]: where each row's IDs start in `values`, and where the last end."""
        if self.lengths is None:
            return np.arange(len(self.values) + 1, dtype=np.int64)
        offsets = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(self.lengths, out=offsets[1:])
        return offsets

    @staticmethod
    def of(ragged: Ragged) -> Bags:
        """A transformed feature."""
        return Bags(ragged.values, None if one_each(ragged.lengths) else ragged.lengths, ragged.weights)

    def narrow(self, start: int, stop: int) -> Bags:
        """Rows [start, stop), viewed."""
        low, high = (start, stop) if self.lengths is None else self.offsets[[start, stop]].tolist()
        lengths = None if self.lengths is None else self.lengths[start:stop]
        return Bags(self.values[low:high], lengths, None if self.weights is None else self.weights[low:high])

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        offsets = 0 if self.lengths is None else 3 * self.lengths.nbytes
        return self.values.nbytes + offsets + (0 if self.weights is None else self.weights.nbytes)


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
        bags = tuple(Bags.of(columns.sparse[name]) for name in names)
        return Block(bags, columns.dense, labels, label_weights, groups)

    @staticmethod
    def empty(rows: int, features: int, dense_width: int, tasks: int, grouped: bool) -> Block:
        """Rows without IDs, of weight zero, in place of rows that cannot be read."""
        nothing = Bags(np.empty(0, np.int64), np.zeros(rows, np.int32), None)
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


def lengths_of(bags: Bags) -> npt.NDArray[np.int32]:
    """The length of every bag, written out where each is one."""
    return np.ones(len(bags.values), np.int32) if bags.lengths is None else bags.lengths


def weights_of(bags: Bags) -> npt.NDArray[np.float32]:
    """The weight of every ID: 1 in a feature without weights."""
    return np.ones(len(bags.values), np.float32) if bags.weights is None else bags.weights
