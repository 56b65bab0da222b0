"""What was known of a key before a day: sums and lists of earlier events, and nothing of the same day or later.

An event belongs to a key (a user, a video, ...) and a day; days are small numbers. This is how a feature store that is
filled every night would have answered, so a model may use it. Which events and keys there are is left to the importers.
Letters: N events, R rows that ask.
"""

import numpy as np
import pyarrow as pa


class Events:
    """Events in the order of (key, day), and within a day in the order given."""

    def __init__(self, keys: np.ndarray, days: np.ndarray) -> None:
        """keys [N]: non-negative integers below 2^50; days [N]: 0 to 999."""
        assert len(keys) == 0 or (days.min() >= 0 and days.max() < _DAYS and keys.min() >= 0)
        place = keys.astype(np.int64) * _DAYS + days
        self._order = np.argsort(place, kind="stable")
        self._place = place[self._order]

    def sums(self, values: np.ndarray, keys: np.ndarray, days: np.ndarray) -> np.ndarray:
        """[R]: sum of `values` [N] over the events of each of `keys` [R] before each of `days` [R]."""
        begin, end = self._ranges(keys, days)
        running = np.concatenate([[0.0], np.cumsum(values[self._order], dtype=np.float64)])
        return running[end] - running[begin]

    def last(self, values: np.ndarray, keys: np.ndarray, days: np.ndarray, length: int) -> pa.ListArray:
        """R lists, oldest first: `values` [N] of the last `length` events of each of `keys` before each of `days`."""
        begin, end = self._ranges(keys, days)
        begin = np.maximum(begin, end - length)
        lengths = end - begin
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], lengths)
        flat = pa.array(values[self._order[positions]])
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), flat)

    def _ranges(self, keys: np.ndarray, days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = keys.astype(np.int64) * _DAYS
        return np.searchsorted(self._place, first), np.searchsorted(self._place, first + days)


_DAYS = 1_000
