"""How many IDs the transforms have dropped (`out_of_range: drop`), of how many, in the row groups that a rank decoded.

A row group that is decoded again, for another lane or another epoch, counts again: it is the share that tells.
"""

import threading
from collections.abc import Sequence

from embeddings.features.feature_transforms import Columns


class DroppedIds:
    """A running count. Safe to use from several threads.

    Attributes:
        counts: feature -> (IDs dropped, all of its IDs), for the features that may drop some.
    """

    def __init__(self, features: Sequence[str]) -> None:
        self.counts: dict[str, tuple[int, int]] = {}
        for name in features:
            self.counts[name] = 0, 0
        self._lock = threading.Lock()

    def add(self, columns: Columns) -> None:
        """Counts transformed rows."""
        with self._lock:
            for name, (before, of) in self.counts.items():
                dropped = columns.dropped.get(name, 0)
                self.counts[name] = before + dropped, of + dropped + len(columns.sparse[name].values)
