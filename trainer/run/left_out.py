"""Row groups that `data.on_error: quarantine` left out of a run, kept in its checkpoints and in quarantined.json.

A replay leaves out the same rows, on any number of workers. When a row group is left out is the reader's business.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from trainer.agreement import Agreement
from trainer.checkpoint.files import Checkpoint
from trainer.data.quarantine import Quarantined
from trainer.data.reader import Reader
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

    def update(self, reader: Reader, say: Callable[[str], None]) -> dict[str, Any]:
        """Takes in what any rank's reader has left out; returns the list as a part of a checkpoint's state."""
        known = {(entry.file, entry.row_group): entry for entry in self.entries}
        found = [entry for entries in self._ranks.gather(list(reader.quarantined)) for entry in entries]
        new = [entry for entry in found if (entry.file, entry.row_group) not in known]
        for entry in new:
            say(f"left out: {entry.file}, row group {entry.row_group}, {entry.rows:,} rows: {entry.reason}")
            known[entry.file, entry.row_group] = entry
        self.entries = [known[key] for key in sorted(known)]
        listed = [asdict(entry) for entry in self.entries]
        if new and self._ranks.rank == 0:
            write_json(self._run.quarantined, listed)
        return {_KEY: listed}
