"""Row groups that a run skips because they cannot be read (`data.on_error: quarantine`).

Kept in its checkpoints and in quarantined.json. A replay skips the same rows, on any number of workers. When a row
group is skipped is the reader's business.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from trainer.data.reading.quarantine import Quarantined
from trainer.data.reading.reader import Reader
from trainer.ranks.agreement import Agreement
from trainer.run.run_directory import RunDirectory, write_json
from trainer.run.saved_names import extra

_SAVED_AS = extra("quarantined")


class SkippedRowGroups:
    """The list of a run. All ranks make it, and call `update`, together.

    Attributes:
        entries: what is known to all ranks.
    """

    def __init__(self, run: RunDirectory, saved: Mapping[str, Any]) -> None:
        """saved: JSON values of the checkpoint that the run resumes from; none at a beginning."""
        self._run = run
        self._ranks = Agreement()
        self.entries = [Quarantined(**entry) for entry in saved.get(_SAVED_AS, [])]

    @property
    def rows(self) -> int:
        """Rows of all that is skipped."""
        return sum(entry.rows for entry in self.entries)

    @property
    def state(self) -> dict[str, Any]:
        """The list as a part of a checkpoint's state."""
        return {_SAVED_AS: [asdict(entry) for entry in self.entries]}

    def update(self, reader: Reader, say: Callable[[str], None]) -> None:
        """Takes in what any rank's reader has skipped; from now on all skip it.

        Raises:
            DataError: on all ranks, if together it is more than data.max_quarantined_fraction.
        """
        known = {(entry.file, entry.row_group): entry for entry in self.entries}
        mine = [entry for entry in reader.quarantined if (entry.file, entry.row_group) not in known]
        found = {(entry.file, entry.row_group): entry for entries in self._ranks.gather(mine) for entry in entries}
        if not found:
            return
        for entry in found.values():
            say(f"skipped: {entry.file}, row group {entry.row_group}, {entry.rows:,} rows: {entry.reason}")
        known |= found
        self.entries = [known[key] for key in sorted(known)]
        if self._ranks.rank == 0:
            write_json(self._run.quarantined, self.state[_SAVED_AS])
        reader.skip(list(found.values()))
