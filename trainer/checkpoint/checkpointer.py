"""Saves and restores the state of a run on all ranks together, in the background when asked.

A flat dict (`model/...`, `optim/...`, `window/...`, `extra/...`) is saved whole, a *base*, through
torch.distributed.checkpoint, which reshards tables and optimizer state to any number of ranks; or as a *link*, the rows
that changed since the state before. Either counts once its complete.json is there, the last file written. Every start
of a run goes on from the newest state whose files are whole. A state with NaN or infinite numbers is never completed.

Files are `files`', `links`' and `storage`'s business, finding is `finding`'s; which rows changed is told by the row log
that `follow` was given, and what belongs into the state is the caller's.
"""

import json
import logging
import threading
import time
import warnings
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import load

from configs.errors import UserError
from configs.schema import CheckpointConfig
from embeddings.row_log import RowLog
from trainer.checkpoint import attempts, link_load
from trainer.checkpoint.attempts import Attempt, SupersededError
from trainer.checkpoint.base_save import BaseSave
from trainer.checkpoint.chain import State
from trainer.checkpoint.finding import Finder
from trainer.checkpoint.finite import refuse_to_load
from trainer.checkpoint.link_save import LinkSave
from trainer.checkpoint.match import refuse_mismatch
from trainer.checkpoint.outcome import CheckpointError, passes, reason
from trainer.checkpoint.storage import RawReader
from trainer.checkpoint.there import there
from trainer.checkpoint.upkeep import Upkeep, set_aside_later
from trainer.ranks.agreement import Agreement
from trainer.run.diverged import DivergedError
from trainer.run.folder import Folder
from trainer.run.position import Position

log = logging.getLogger(__name__)
_NOTHING = -1  # before the first step
_TICK_S = 1.0

# One process without a process group is a normal run, not a mistake.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


class Checkpointer:
    """Checkpoints of one run. All ranks make it, and call its methods, in the same order.

    Args:
        directory: `checkpoints/` of the run directory: a local or NFS path, or an fsspec URL, that all hosts see.
        facts: JSON values kept in each checkpoint: fingerprints of config and manifest, versions.
        process_group: the ranks of the run (default: all). Collectives go over a gloo group of their own.
        timeout: after which a rank that does not answer fails the save.

    Attributes:
        may_be_undefined: names of tensors in which NaN has a meaning; in no other is it saved or loaded.
        say: what rank 0 tells the user.
        beat: called now and then while a save is waited for.
    """

    def __init__(
        self,
        directory: str | Path,
        config: CheckpointConfig,
        facts: dict[str, Any],
        process_group: dist.ProcessGroup | None = None,
        timeout: timedelta = timedelta(hours=1),
    ) -> None:
        self.folder = Folder(directory)
        self.config = config
        self.facts = facts
        self.may_be_undefined: Collection[str] = ()
        self.say: Callable[[str], None] = log.warning
        self.beat: Callable[[], None] = lambda: None
        self.newest: State | None = None
        """The last one that this process wrote or loaded; ranks other than 0 know its end alone."""
        self.upkeep = Upkeep(self.folder, config, lambda text: self.say(text))
        self._ranks = Agreement(process_group, timeout)
        self._finder = Finder(self.folder, self._ranks)
        self._base_save = BaseSave(self.folder, facts, self._ranks, self.upkeep)
        self._link_save: LinkSave | None = None
        self._thread: threading.Thread | None = None
        self._error: CheckpointError | UserError | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a save is going on."""
        return self._thread is not None and self._thread.is_alive()

    def claim(self) -> None:
        """Makes this the newest attempt of the run: what older ones still write does not count from here on.

        Call it before `load`, in processes that train.
        """
        number = self._ranks.from_first(attempts.claim(self.folder).number if self._ranks.rank == 0 else 0)
        self.upkeep.attempt = Attempt(self.folder.child(attempts.FOLDER), number)

    def follow(self, row_log: RowLog) -> None:
        """From here on saves are links, but for the first of a run. Call it when the state is loaded."""
        self._link_save = LinkSave(self.folder, row_log, self._ranks, self.upkeep)

    def save(self, state: dict[str, Any], *, step: int, epoch: int, epoch_step: int, blocking: bool = False) -> float:
        """Saves the state as it is now, and returns for how many seconds training stood still.

        Waits for the save before, if that is still going on. A step that is saved already is not saved twice.

        Args:
            state: live tensors of any kind (DTensor, ShardedTensor, replicated); other values are JSON and rank 0's.

        Raises:
            CheckpointError: the save before, or this one if blocking, failed on some rank.
            DivergedError: its state had numbers that are NaN or infinite.
            SupersededError: another attempt has taken over.
        """
        position = Position(step, epoch, epoch_step)
        return self._save(state, position, blocking=blocking, base_wanted=True)

    def save_link(self, state: dict[str, Any], position: Position) -> float:
        """The same of what changed since the state before; the whole state where there is none."""
        return self._save(state, position, blocking=False, base_wanted=False)

    def _save(self, state: dict[str, Any], position: Position, *, blocking: bool, base_wanted: bool) -> float:
        started = time.perf_counter()
        self.wait()
        if self.newest is None or self.newest.step != position.step:
            tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
            extra = json.loads(json.dumps({name: value for name, value in state.items() if name not in tensors}))
            write = self._begin(tensors, extra, position, blocking=blocking, base_wanted=base_wanted)
            self._thread = threading.Thread(target=self._run, args=(position, write), name="checkpoint", daemon=True)
            self._thread.start()
            if blocking or not self.config.asynchronous:
                self.wait(must_succeed=blocking)
        elif base_wanted and self._ranks.rank == 0 and self.newest.links:
            self.newest = self.upkeep.after_link(self.newest, base_wanted=True)
        return time.perf_counter() - started

    def _begin(
        self,
        tensors: dict[str, Tensor],
        extra: dict[str, Any],
        position: Position,
        *,
        blocking: bool,
        base_wanted: bool,
    ) -> Callable[[], State]:
        former, allowed = self.newest, self.may_be_undefined
        if self._link_save is not None and former is not None:
            return self._link_save.begin(tensors, extra, position, former, allowed, base_wanted=base_wanted)
        saved = self._link_save.all_saved() if self._link_save else lambda: None
        copied = self.config.asynchronous and not blocking
        write_base = self._base_save.begin(tensors, extra, position, former, allowed, copied=copied)

        def write() -> State:
            state = write_base()
            saved()
            return state

        return write

    def wait(self, *, must_succeed: bool = False) -> None:
        """Returns when no save is in flight. Raises, once, if the last one failed.

        A failure of the storage is said, and raised only where it `must_succeed`: the next save tries again.
        """
        if self._thread is not None:
            while self.is_busy:
                self._thread.join(_TICK_S)
                self.beat()
            self._thread = None
        if self._error is None:
            return
        error, self._error = self._error, None
        if must_succeed or not (isinstance(error, CheckpointError) and error.passes):
            raise error
        if self._ranks.rank == 0:
            newest = f"step {self.newest.step:,} is" if self.newest else "no step is"
            self.say(f"{error}; {newest} the newest that is saved. Training goes on, and the next save tries again.")

    def finish(self) -> None:
        """The end of a run: all is saved, and its end is a base of its own. Raises as `wait`."""
        self.wait(must_succeed=True)
        if self._ranks.rank == 0 and self.newest is not None:
            self.newest = self.upkeep.finish(self.newest)
        self._ranks.from_first(None)  # the others wait here, where they may for longer than at a barrier

    def close(self) -> None:
        """Ends what goes on beside the run."""
        self.upkeep.close()

    def newest_complete(self) -> State | None:
        """The newest state whose files pass their checksums, the same on all ranks; none in a new run.

        What is damaged is named in a warning, set aside, and what is before it taken.

        Raises:
            UserError: there are checkpoints, but none is whole; or some host does not see them.
        """
        return self._finder.newest(self.say)

    def load(self, state: dict[str, Any], saved: State | None = None) -> Position | None:
        """Fills the tensors of `state` in place, resharded to the ranks of today, and sets its other values.

        Args:
            saved: default: `newest_complete()`, and the one before where a former version saved numbers that are NaN or
                infinite.

        Returns:
            How far the checkpoint is; None, and `state` untouched, in a new run.

        Raises:
            UserError: names, sizes or types of the state and of the checkpoint differ, or no checkpoint is whole.
            DivergedError: `saved` has numbers that are NaN or infinite.
        """
        if saved is not None:
            return self._load(state, saved)
        while (newest := self.newest_complete()) is not None:
            try:
                return self._load(state, newest)
            except DivergedError as error:
                self._finder.refused[newest.end.digest] = str(error).splitlines()[0]
        self._went_on_from(_NOTHING)
        return None

    def _load(self, state: dict[str, Any], saved: State) -> Position:
        reader = RawReader(saved.base)
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        refuse_mismatch(state, saved.base, reader.metadata, self._ranks)
        chain = link_load.ChainLoad(saved.links, tensors)
        planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        try:
            load(
                tensors,
                storage_reader=reader,
                planner=planner,
                process_group=self._ranks.group,
                no_dist=self._ranks.is_alone,
            )
        except CheckpointException as error:
            raise CheckpointError(f"{saved.base.folder} could not be loaded: {reason(error)}") from error
        unsound = reader.unsound if not saved.links else set()
        unsound |= chain.put(tensors)
        refuse_to_load(unsound, self.may_be_undefined, saved.end.folder, self._ranks)
        state.update({name: saved.extra[name] for name in state if name not in tensors})
        self.newest = saved
        self._went_on_from(saved.step)
        return saved.position

    def _went_on_from(self, step: int) -> None:
        """What older attempts have saved beyond the step, or still do, is no part of the run any more."""
        if self._ranks.rank == 0 and self.upkeep.attempt.number:
            self.upkeep.attempt.went_on_from(step)
            set_aside_later(self.folder, step, there(self.folder).links)

    def _run(self, position: Position, write: Callable[[], State]) -> None:
        """One save in its thread. Never raises: the error waits for the next call of `wait`."""
        try:
            self.newest = write()
        except (CheckpointError, DivergedError, SupersededError) as error:
            self._error = error
        except BaseException as error:  # DCP's own error is a BaseException
            self._error = CheckpointError(
                f"step {position.step:,} could not be written: {reason(error)}", passes=passes(error)
            )
            self._error.__cause__ = error
