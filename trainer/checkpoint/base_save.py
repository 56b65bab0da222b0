"""Saves a state whole, by all ranks together through torch.distributed.checkpoint."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.state_dict_saver import save

from trainer.checkpoint import files
from trainer.checkpoint.chain import State
from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.outcome import completed, refuse_missing, refuse_unsound
from trainer.checkpoint.storage import CopyingPlanner, RawWriter
from trainer.checkpoint.upkeep import Upkeep
from trainer.ranks.agreement import Agreement
from trainer.run.folder import Folder
from trainer.run.position import Position


class BaseSave:
    """Writes bases of one run."""

    def __init__(self, checkpoints: Folder, facts: dict[str, Any], ranks: Agreement, upkeep: Upkeep) -> None:
        self._checkpoints, self._facts, self._ranks, self._upkeep = checkpoints, facts, ranks, upkeep
        self._buffers: dict[MetadataIndex, Tensor] = {}

    def begin(
        self,
        tensors: Mapping[str, Tensor],
        extra: dict[str, Any],
        position: Position,
        former: State | None,
        allowed: Collection[str],
        *,
        copied: bool,
    ) -> Callable[[], State]:
        """What is to be called, in any thread, to write the state; if `copied`, as it is now.

        allowed: names of tensors in which NaN has a meaning.
        """
        planner = CopyingPlanner(self._buffers)
        if copied:
            planner.copy(dict(tensors))
        return lambda: self._write(planner, dict(tensors), extra, position, former, allowed)

    def _write(
        self,
        planner: CopyingPlanner,
        tensors: dict[str, Tensor],
        extra: dict[str, Any],
        position: Position,
        former: State | None,
        allowed: Collection[str],
    ) -> State:
        ranks, folder = self._ranks, self._checkpoints.child(files.folder_name(position.step))
        writer = RawWriter(folder)
        save(tensors, storage_writer=writer, planner=planner, process_group=ranks.group, no_dist=ranks.is_alone)
        refuse_unsound(ranks, writer.unsound, allowed, former, folder, position.step)
        records = {name: record for part in ranks.gather(writer.records) for name, record in part.items()}
        attempt = self._upkeep.attempt.number
        made = Checkpoint(folder, position, ranks.world_size, self._facts, extra, records, attempt)
        return completed(ranks, folder, lambda: self._complete(made))

    def _complete(self, made: Checkpoint) -> State:
        """On rank 0."""
        refuse_missing(made.folder, made.files)
        for name in set(made.folder.names()) - set(made.files):
            made.folder.remove(name)  # of a save that outlived its worker group
        self._upkeep.attempt.refuse_if_superseded(f"step {made.step:,}")
        files.write_complete(made)
        return self._upkeep.after_base(State(files.read_complete(made.folder)))
