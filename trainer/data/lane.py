"""The rows that a chunk takes from one lane, column by column, in the order of training.

A column is viewed where it can be, copied where rows come from several row groups, and permuted where there are
windows. R rows, N IDs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from trainer.data.block import Bags, Block, lengths_of, weights_of
from trainer.data.order import Indices, Pick

Lengths = npt.NDArray[np.int32]


class LaneRows:
    """Rows of a lane.

    Attributes:
        rows: how many.
    """

    def __init__(self, picks: Sequence[Pick], block: Callable[[int], Block]) -> None:
        """Finds the rows of `picks` in their row groups' blocks."""
        self._parts = [block(run.row_group).narrow(run.start, run.stop) for pick in picks for run in pick.runs]
        self._index = _joined_index(picks)
        self.rows = sum(len(part) for part in self._parts) if self._index is None else len(self._index)
        self._offsets: dict[int, Indices] = {}

    def numbers(self, name: str) -> npt.NDArray[np.float32]:
        """The block's matrix `name` [R, ...]."""
        return self._take(_join([getattr(part, name) for part in self._parts]))

    def lengths(self, feature: int) -> Lengths | None:
        """Lengths [R] of the bags; None if each is one."""
        bags = self._bags(feature)
        if all(part.lengths is None for part in bags):
            return None
        lengths = _join([lengths_of(part) for part in bags])
        if self._index is not None:
            self._offsets[feature] = _starts(lengths).take(self._index)
        return self._take(lengths)

    def count(self, lengths: Lengths | None) -> int:
        """N, the IDs in bags of these lengths."""
        return self.rows if lengths is None else int(lengths.sum())

    def ids(self, feature: int, lengths: Lengths | None, weighted: bool) -> tuple[np.ndarray, np.ndarray]:
        """IDs [N] of the bags whose `lengths` the method of that name gave, and their weights, if any are wanted."""
        bags = self._bags(feature)
        places = self._index
        if places is not None and lengths is not None:
            places = _places(self._offsets.pop(feature), lengths)
        values = _join([part.values for part in bags])
        weights = _join([weights_of(part) for part in bags]) if weighted else values
        if places is None:
            return values, weights
        return values.take(places), weights.take(places) if weighted else values

    def _bags(self, feature: int) -> list[Bags]:
        return [part.bags[feature] for part in self._parts]

    def _take(self, rows: np.ndarray) -> np.ndarray:
        return rows if self._index is None else rows.take(self._index, axis=0)


def _joined_index(picks: Sequence[Pick]) -> Indices | None:
    """One index into the rows of all picks; None if the rows are taken as they come."""
    if not picks or picks[0].index is None:
        return None
    parts, start = [], 0
    for pick in picks:
        assert pick.index is not None, "all picks of a lane have an index, or none"
        parts.append(pick.index + start if start else pick.index)
        start += sum(run.stop - run.start for run in pick.runs)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _join(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _starts(lengths: Lengths) -> Indices:
    starts = np.cumsum(lengths, dtype=np.int64)
    starts -= lengths
    return starts


def _places(starts: Indices, lengths: Lengths) -> Indices:
    """For bags that start at `starts`, the place of each of their IDs."""
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = starts - ends
    starts += lengths
    places = np.repeat(starts, lengths)
    places += np.arange(len(places))
    return places
