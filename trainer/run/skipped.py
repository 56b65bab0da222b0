"""Row groups that `data.on_error: quarantine` left out of a run, kept in its checkpoints and in quarantined.json.

A replay leaves out the same rows, on any number of workers. When a row group is left out is the reader's business.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from trainer.checkpoint.files import Checkpoint
from trainer.data.reading.quarantine import Quarantined
from trainer.data.reading.reader import Reader
from trainer.ranks.agreement import Agreement
from trainer.run.run_directory import RunDirectory, write_json

_KEY = "extra/quarantined"


class LeftOut:
    """The list of a run. All ranks make it, and call `update`, together.

    Attributes:
        entries: what is known to all ranks.
    """

    def __init__(self, run: RunDirectory, checkpoint: Checkpoint | None) -> None:
        self._run = run
        self._ranks = Agreement()
        self.entries = [Quarantined(**entry) for entry in checkpoint.extra.get(_KEY, [])] if checkpoint else []

    @property
    def rows(self) -> int:
        """Rows of all that is left out."""
        return sum(entry.rows for entry in self.entries)

    @property
    def state(self) -> dict[str, Any]:
        """The list as a part of a checkpoint's state."""
        return {_KEY: [asdict(entry) for entry in self.entries]}

    def update(self, reader: Reader, say: Callable[[str], None]) -> None:
        """Takes in what any rank's reader has left out; from now on all leave it out.

        Raises:
            DataError: on all ranks, if together it is more than data.max_quarantined_fraction.
        """
        known = {(entry.file, entry.row_group): entry for entry in self.entries}
        mine = [entry for entry in reader.quarantined if (entry.file, entry.row_group) not in known]
        found = {(entry.file, entry.row_group): entry for entries in self._ranks.gather(mine) for entry in entries}
        if not found:
            return
        for entry in found.values():
            say(f"left out: {entry.file}, row group {entry.row_group}, {entry.rows:,} rows: {entry.reason}")
        known |= found
        self.entries = [known[key] for key in sorted(known)]
        if self._ranks.rank == 0:
            write_json(self._run.quarantined, self.state[_KEY])
        reader.leave_out(list(found.values()))
