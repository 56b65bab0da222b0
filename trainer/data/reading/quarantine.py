"""Row groups that are skipped because they cannot be read: their rows keep their places with weight zero.

The list belongs to the run: it is handed to the reader of the next start, so that a replay skips the same rows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from configs.schema import DataConfig
from trainer.data.dataset.faults import DataError, StorageUnavailable
from trainer.data.dataset.manifest import RowGroup

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Quarantined:
    """A row group that was skipped: its file below the root, its place there, its rows, and why."""

    file: str
    row_group: int
    rows: int
    reason: str


class Quarantine:
    """What a config says about row groups that cannot be read. Safe to use from several threads.

    Attributes:
        entries: what was skipped so far.
        rows: of the data set.
    """

    def __init__(self, data: DataConfig, rows: int, entries: Sequence[Quarantined] = ()) -> None:
        """Args:
        rows: of the data set.
        entries: what an earlier reader skipped.
        """
        self._is_allowed = data.on_error == "quarantine"
        self._limit = data.max_quarantined_fraction
        self.rows = rows
        self._lock = threading.Lock()
        self._entries = {(entry.file, entry.row_group): entry for entry in entries}

    @property
    def entries(self) -> list[Quarantined]:
        with self._lock:
            return list(self._entries.values())

    def __contains__(self, row_group: RowGroup) -> bool:
        return (row_group.file.path, row_group.place) in self._entries

    def add(self, row_group: RowGroup, error: DataError | StorageUnavailable) -> None:
        """Skips a row group.

        Raises:
            DataError, StorageUnavailable: `error` itself where the config skips nothing; one of its kind that says
                so beyond the limit.
        """
        if not self._is_allowed:
            raise error
        entry = Quarantined(row_group.file.path, row_group.place, row_group.rows, str(error).splitlines()[0])
        with self._lock:
            self._entries[entry.file, entry.row_group] = entry
        _log.warning("skipped: %s", entry.reason)
        self._refuse_too_many(error)

    def add_all(self, entries: Sequence[Quarantined]) -> None:
        """Skips what other ranks have skipped.

        Raises:
            DataError: together they are beyond the limit.
        """
        with self._lock:
            self._entries |= {(entry.file, entry.row_group): entry for entry in entries}
        if entries:
            self._refuse_too_many(DataError(f"{entries[-1].reason}\nRestore the files, or raise the limit."))

    def _refuse_too_many(self, error: DataError | StorageUnavailable) -> None:
        rows = sum(entry.rows for entry in self.entries)
        if rows > self._limit * self.rows:
            raise type(error)(
                f"{rows:,} of {self.rows:,} rows cannot be read, more than data.max_quarantined_fraction="
                f"{self._limit:g}; the last: {error}"
            ) from error
