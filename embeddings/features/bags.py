"""Bags of IDs: the one form of a sparse feature, from its transform to the tables.

R rows, N IDs of all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embeddings.features.arrow import one_each


@dataclass(frozen=True)
class Bags:
    """The IDs of one feature, a bag per row.

    Attributes:
        values: int64 [N], bag after bag.
        lengths: int32 [R], the IDs of each bag; a single broadcast number where a column is scalar, see `is_scalar`.
        weights: float32 [N], one per ID; None for a feature without weights, see `all_weights`.
    """

    values: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def is_scalar(self) -> bool:
        """Whether every row has one ID, and its lengths take no memory."""
        return one_each(self.lengths)

    @property
    def all_weights(self) -> npt.NDArray[np.float32]:
        """The weight of every ID [N]: 1 in a feature without weights."""
        return np.ones(len(self.values), np.float32) if self.weights is None else self.weights

    @cached_property
    def _offsets(self) -> npt.NDArray[np.int64]:
        """Where each row's IDs start in `values`, and where the last end [R + 1]."""
        offsets = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(self.lengths, out=offsets[1:])
        return offsets

    def narrow(self, start: int, stop: int) -> Bags:
        """Rows [start, stop), viewed."""
        low, high = (start, stop) if self.is_scalar else self._offsets[[start, stop]].tolist()
        weights = None if self.weights is None else self.weights[low:high]
        return Bags(self.values[low:high], self.lengths[start:stop], weights)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, with the offsets of `narrow`."""
        lengths = 0 if self.is_scalar else 3 * self.lengths.nbytes
        return self.values.nbytes + lengths + (0 if self.weights is None else self.weights.nbytes)
