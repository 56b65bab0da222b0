"""Saves what changed since the state before, by all ranks together, while training goes on.

Training waits for the copy of what is small and changes whole. Rows are copied beside the next step, whose update of
rows waits until that is done: its forward pass, and most of its backward pass, do not.
"""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from embeddings.row_log import Reader, RowLog
from trainer.checkpoint import link_files
from trainer.checkpoint.chain import State
from trainer.checkpoint.link_files import Link
from trainer.checkpoint.links import RowsPart, Written, copy_rows, copy_whole, split, write_part
from trainer.checkpoint.outcome import CheckpointError, completed, passes, reason, refuse_missing, refuse_unsound
from trainer.checkpoint.upkeep import Upkeep
from trainer.ranks.agreement import Agreement
from trainer.run.folder import Folder
from trainer.run.position import Position
from trainer.run.saved_names import WINDOW, section


@dataclass(frozen=True)
class _Cut:
    """What a link is made of on this rank, as it is at one step."""

    number: int
    rows: Callable[[], Sequence[RowsPart]]
    whole: Mapping[str, Tensor]


class LinkSave:
    """Writes links of one run, of the rows that a log tells of."""

    def __init__(self, checkpoints: Folder, row_log: RowLog, ranks: Agreement, upkeep: Upkeep) -> None:
        self._checkpoints, self._log, self._ranks, self._upkeep = checkpoints, row_log, ranks, upkeep
        self._changes: Reader = row_log.follow()

    def all_saved(self) -> Callable[[], None]:
        """To be called when all that is trained by now is saved otherwise."""
        cut = self._log.take_cut()
        return lambda: self._changes.advance(cut)

    def begin(
        self,
        tensors: Mapping[str, Tensor],
        extra: dict[str, Any],
        position: Position,
        former: State,
        allowed: Collection[str],
        *,
        base_wanted: bool,
    ) -> Callable[[], State]:
        """What is to be called, in another thread, to write the state as it is now.

        Args:
            former: the state that the link follows.
            allowed: names of tensors in which NaN has a meaning.
            base_wanted: whether a base is to be merged of the state.
        """
        cut = self._cut(tensors)

        def write() -> State:
            state = self._write(cut, extra, position, former, allowed, base_wanted=base_wanted)
            self._changes.advance(cut.number)
            return state

        return write

    def _cut(self, tensors: Mapping[str, Tensor]) -> _Cut:
        by_rows, others = split(tensors)
        mine = {name: value for name, value in others.items() if self._ranks.rank == 0 or section(name) == WINDOW}
        number, whole, hold = self._log.take_cut(), copy_whole(mine), self._log.hold()
        if hold is None:
            copies = copy_rows(by_rows, self._changes.changed())
            return _Cut(number, lambda: copies, whole)

        def rows() -> Sequence[RowsPart]:
            with hold:
                return copy_rows(by_rows, self._changes.changed())

        return _Cut(number, rows, whole)

    def _write(
        self,
        cut: _Cut,
        extra: dict[str, Any],
        position: Position,
        former: State,
        allowed: Collection[str],
        *,
        base_wanted: bool,
    ) -> State:
        ranks, attempt = self._ranks, self._upkeep.attempt.number
        name = link_files.folder_name(position.step, attempt)
        folder = self._checkpoints.child(f"{link_files.FOLDER}/{name}")
        parts = self._parts(folder, cut)
        refuse_unsound(ranks, parts[ranks.rank].unsound, allowed, former, folder, position.step)
        made = Link(
            folder=folder,
            position=position,
            world_size=ranks.world_size,
            attempt=attempt,
            number=former.links[-1].number + 1 if former.links else 1,
            predecessor=former.end.digest,
            extra=extra,
            files={name: record for part in parts for name, record in part.files.items()},
            rows=tuple(entry for part in parts for entry in part.rows),
            whole=tuple(entry for part in parts for entry in part.whole),
        )
        return completed(ranks, folder, lambda: self._complete(made, former, base_wanted=base_wanted))

    def _parts(self, folder: Folder, cut: _Cut) -> list[Written]:
        """What every rank wrote."""
        written, failure = Written(), None
        try:
            written = write_part(folder, self._ranks.rank, secrets.token_hex(4), cut.rows(), cut.whole)
        except Exception as error:
            failure = f"rank {self._ranks.rank}: {reason(error)}", passes(error)
        reports = self._ranks.gather((written, failure))
        failures = [failure for _, failure in reports if failure is not None]
        if failures:
            raise CheckpointError(
                f"{folder} could not be written: {'; '.join(text for text, _ in failures)}",
                passes=all(passing for _, passing in failures),
            )
        return [part for part, _ in reports]

    def _complete(self, made: Link, former: State, *, base_wanted: bool) -> State:
        """On rank 0."""
        refuse_missing(made.folder, made.files)
        self._upkeep.attempt.refuse_if_superseded(f"step {made.step:,}")
        link = replace(made, digest=link_files.write_link(made), rows=(), whole=())  # files say what lies where
        state = State(former.base, (*former.links, link))
        return self._upkeep.after_link(state, base_wanted=base_wanted)
