"""Saves and restores the state of a run on all ranks together, in the background when asked.

A flat dict (`model/...`, `optim/...`, `extra/...`) goes through torch.distributed.checkpoint, which reshards tables
and optimizer state to any number of ranks. A checkpoint counts once complete.json is there, the last file written;
every start of a run resumes at the newest that passes its checksums. A state with NaN or infinite numbers is never
completed. The files are `files`' and `storage`'s business; what belongs into the state is the caller's.
"""

import json
import logging
import socket
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
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from configs.errors import UserError
from configs.schema import CheckpointConfig
from trainer.checkpoint import files
from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.finite import DivergedError, refuse_to_load, refuse_to_save
from trainer.checkpoint.match import refuse_mismatch
from trainer.checkpoint.storage import CopyingPlanner, RawReader, RawWriter
from trainer.ranks.agreement import Agreement
from trainer.run.folder import Folder
from trainer.run.position import Position

log = logging.getLogger(__name__)

# One process without a process group is a normal run, not a mistake.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read. All ranks raise it with the same message."""


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
        self._diverged: dict[int, str] = {}  # step -> what is not finite in it, the same on all ranks
        self.newest: Checkpoint | None = None
        """The last one that this process wrote or loaded."""
        self._ranks = Agreement(process_group, timeout)
        self._buffers: dict[MetadataIndex, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: CheckpointError | DivergedError | None = None

    def save(self, state: dict[str, Any], *, step: int, epoch: int, epoch_step: int, blocking: bool = False) -> float:
        """Saves the state as it is now, and returns for how many seconds training stood still.

        Waits for the save before, if that is still going on. A step that is saved already is not saved twice.

        Args:
            state: live tensors of any kind (DTensor, ShardedTensor, replicated); other values are JSON and rank 0's.

        Raises:
            CheckpointError: the save before, or this one if blocking, failed on some rank.
            DivergedError: its state had numbers that are NaN or infinite.
        """
        started = time.perf_counter()
        self.wait()
        if self.newest is None or self.newest.step != step:
            tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
            extra = json.loads(json.dumps({name: value for name, value in state.items() if name not in tensors}))
            planner = CopyingPlanner(self._buffers)
            position = Position(step, epoch, epoch_step)
            if blocking or not self.config.asynchronous:
                self._write(planner, tensors, extra, position)
                self.wait()
            else:
                planner.copy(tensors)
                self._thread = threading.Thread(
                    target=self._write, args=(planner, tensors, extra, position), name="checkpoint", daemon=True
                )
                self._thread.start()
        return time.perf_counter() - started

    def wait(self) -> None:
        """Returns when nothing is in flight. Raises CheckpointError or DivergedError, once, if the last save failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def newest_complete(self) -> Checkpoint | None:
        """The newest checkpoint whose files pass their checksums, the same on all ranks; none in a new run.

        Damaged ones are named in a warning, set aside, and the one before is taken. Each rank checks a share of files.

        Raises:
            UserError: there are checkpoints, but none is whole; or some host does not see them.
        """
        complete, damaged = self._ranks.from_first(files.find(self.folder) if self._ranks.rank == 0 else ([], {}))
        for checkpoint in complete:
            diverged = self._diverged.get(checkpoint.step)
            found = [diverged] if diverged else self._problems(checkpoint)
            if not found:
                self._set_aside(damaged)
                return checkpoint
            damaged[checkpoint.folder] = "; ".join(found)
        if damaged:
            raise UserError(
                f"no checkpoint of {self.folder} is whole: {'; '.join(damaged.values())}\n"
                "restore the files, or start again from the beginning with --overwrite"
            )
        return None

    def load(self, state: dict[str, Any], checkpoint: Checkpoint | None = None) -> Position | None:
        """Fills the tensors of `state` in place, resharded to the ranks of today, and sets its other values.

        Args:
            checkpoint: default: `newest_complete()`, and the one before where a former version saved numbers that are
                NaN or infinite.

        Returns:
            How far the checkpoint is; None, and `state` untouched, in a new run.

        Raises:
            UserError: names, sizes or types of the state and of the checkpoint differ, or no checkpoint is whole.
            DivergedError: `checkpoint` has numbers that are NaN or infinite.
        """
        if checkpoint is not None:
            return self._load(state, checkpoint)
        while (newest := self.newest_complete()) is not None:
            try:
                return self._load(state, newest)
            except DivergedError as error:
                self._diverged[newest.step] = str(error).splitlines()[0]
        return None

    def _load(self, state: dict[str, Any], checkpoint: Checkpoint) -> Position:
        reader = RawReader(checkpoint)
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        refuse_mismatch(state, checkpoint, reader.metadata, self._ranks)
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
            raise CheckpointError(f"{checkpoint.folder} could not be loaded: {_reason(error)}") from error
        refuse_to_load(reader.unsound, self.may_be_undefined, checkpoint, self._ranks)
        state.update({name: checkpoint.extra[name] for name in state if name not in tensors})
        self.newest = checkpoint
        return checkpoint.position

    def _write(self, planner: CopyingPlanner, tensors: dict[str, Tensor], extra: dict, position: Position) -> None:
        """One save from planning to pruning. Never raises: the error waits for the next call of `wait`."""
        folder = self.folder.child(files.folder_name(position.step))
        try:
            writer = RawWriter(folder)
            save(
                tensors,
                storage_writer=writer,
                planner=planner,
                process_group=self._ranks.group,
                no_dist=self._ranks.is_alone,
            )
            former = self.newest.step if self.newest else None
            refuse_to_save(writer.unsound, self.may_be_undefined, former, position.step, self._ranks)
            records = {name: record for part in self._ranks.gather(writer.records) for name, record in part.items()}
            checkpoint = Checkpoint(folder, position, self._ranks.world_size, self.facts, extra, records)
            failure = self._ranks.from_first(self._complete(checkpoint) if self._ranks.rank == 0 else None)
            if failure is not None:
                raise CheckpointError(f"{folder} could not be completed: rank 0: {failure}")
            self.newest = checkpoint
        except CheckpointError as error:
            self._error = error
        except DivergedError as error:  # of all ranks, which have written all that they will
            self._error = error
            if self._ranks.rank == 0:
                files.delete(folder)
        except BaseException as error:  # DCP's own error is a BaseException
            self._error = CheckpointError(f"{folder} could not be written: {_reason(error)}")
            self._error.__cause__ = error

    def _complete(self, checkpoint: Checkpoint) -> str | None:
        """On rank 0: sees that all files arrived, makes the checkpoint count, removes old ones. Returns what failed."""
        try:
            for name, record in checkpoint.files.items():
                size = checkpoint.folder.size(name)
                assert size == record.size, f"{name} has {size} bytes, {record.size} were written"
            for name in set(checkpoint.folder.names()) - set(checkpoint.files):
                checkpoint.folder.remove(name)  # of a save that outlived its worker group
            files.write_complete(checkpoint)
            files.prune(self.folder, checkpoint.step, self.config.keep)
        except FileNotFoundError as error:
            return f"{error}: a rank wrote it, rank 0 does not see it; is the run directory shared by all hosts?"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _problems(self, checkpoint: Checkpoint) -> list[str]:
        """What is wrong with the files, each read by one rank; the same on all ranks.

        Raises:
            UserError: a host finds something wrong that rank 0 does not.
        """
        mine = sorted(checkpoint.files)[self._ranks.rank :: self._ranks.world_size]
        reports = self._ranks.gather((socket.gethostname(), files.problems(checkpoint, mine)))
        suspects = {name: f"on host {host}, {text}" for host, found in reports for name, text in found.items()}
        confirmed = self._ranks.from_first(files.problems(checkpoint, suspects) if self._ranks.rank == 0 else {})
        for name in suspects.keys() - confirmed.keys():
            raise UserError(f"{suspects[name]}; rank 0 finds nothing wrong with it\nmount the same folder on all hosts")
        return list(confirmed.values())

    def _set_aside(self, damaged: dict[Folder, str]) -> None:
        if self._ranks.rank == 0:
            for folder, problem in damaged.items():
                self.say(f"{problem}; set aside, taking the checkpoint before")
                files.set_aside(folder)


def _reason(error: BaseException) -> str:
    """One line for the ranks that failed."""
    if isinstance(error, CheckpointException):
        parts = [f"rank {rank}: {type(e[0]).__name__}: {e[0]}" for rank, e in sorted(error.failures.items())]
        return "; ".join(parts)
    return f"{type(error).__name__}: {error}"
