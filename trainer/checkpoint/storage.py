"""Tensors of a checkpoint on disk: raw values in one file a rank, and tensors.json that says where each lies.

torch.distributed.checkpoint plans who writes and who reads which rows; its own file format pickles an index and every
tensor. Here values are bytes and the index is JSON, so nothing is ever unpickled, a reader on other ranks fetches only
the rows that it owns, and a checksum is taken while writing. Which checkpoint is whole is `files`' business.
"""

import json
import secrets
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from trainer.checkpoint.files import INDEX, Checkpoint
from trainer.checkpoint.marks import COMPLETE
from trainer.checkpoint.sink import Sink
from trainer.checkpoint.values import is_sound, read_region, write_values
from trainer.file_record import FileRecord, checksum
from trainer.run.folder import Folder
from trainer.run.saved_names import is_weight


@dataclass(frozen=True)
class Stored:
    """Where a chunk of a tensor starts in the files of a checkpoint."""

    file: str
    start: int


class CopyingPlanner(DefaultSavePlanner):
    """Plans a save of a flat dict, and can hand out copies taken before training continues.

    `buffers` keeps the copies between saves: memory on the host is claimed, and pinned, once.
    """

    def __init__(self, buffers: dict[MetadataIndex, Tensor]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._buffers = buffers
        self._copied = False

    def copy(self, state: dict[str, Tensor]) -> None:
        """Copies to host memory what this rank may have to write. Returns when the copies are done."""
        self.set_up_planner(state, is_coordinator=True)
        on_cuda = False
        for item in self.create_local_plan().items:
            values = super().resolve_data(item)
            assert isinstance(values, Tensor), f"{item.index.fqn} is not a tensor"
            on_cuda = on_cuda or values.is_cuda
            self._buffer(item.index, values).copy_(values.detach(), non_blocking=True)
        if on_cuda:
            torch.cuda.current_stream().synchronize()
        self._copied = True

    def _buffer(self, index: MetadataIndex, values: Tensor) -> Tensor:
        buffer = self._buffers.get(index)
        if buffer is None or buffer.shape != values.shape or buffer.dtype != values.dtype:
            buffer = torch.empty(values.shape, dtype=values.dtype, device="cpu", pin_memory=values.is_cuda)
            self._buffers[index] = buffer
        return buffer

    def resolve_data(self, write_item: WriteItem) -> Any:
        return self._buffers[write_item.index] if self._copied else super().resolve_data(write_item)


class RawWriter(StorageWriter):
    """Writes this rank's part of a checkpoint.

    Attributes:
        records: size and checksum of what this rank wrote, by file.
        unsound: names of tensors of which this rank wrote numbers that are not sound: NaN, infinite or far too large.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.records: dict[str, FileRecord] = {}
        self.unsound: set[str] = set()

    def reset(self, checkpoint_id: Any = None) -> None:
        self.records, self.unsound = {}, set()

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if is_coordinator:  # no rank writes before it has got its plan, and the plan comes after this
            self.folder.make()
            for name in sorted(self.folder.names(), key=lambda name: name != COMPLETE):
                self.folder.remove(name)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        assert all(item.type != WriteItemType.BYTE_IO for item in plan.items), "only tensors are stored here"
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        # A name of its own for each save: a writer that outlived its worker group cannot touch this one's files.
        token = secrets.token_hex(4)
        return [replace(plan, storage_data=f"rank_{rank:05d}_{token}.bin") for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        name, results = plan.storage_data, []
        if plan.items:
            with self.folder.writer(name) as file:
                sink = Sink(file)
                for item in plan.items:
                    values = planner.resolve_data(item)
                    assert isinstance(values, Tensor)
                    results.append(WriteResult(item.index, values.nbytes, Stored(name, sink.at)))
                    if not write_values(sink, values.detach(), as_weights=is_weight(item.index.fqn)):
                        self.unsound.add(item.index.fqn)
            self.records[name] = sink.record
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        stored = {result.index: result.storage_data for of_rank in results for result in of_rank}
        index = {}
        for name, tensor in sorted(metadata.state_dict_metadata.items()):
            assert isinstance(tensor, TensorStorageMetadata)
            chunks = []
            for chunk in tensor.chunks:
                at = stored[MetadataIndex(name, chunk.offsets)]
                chunks.append([list(chunk.offsets), list(chunk.sizes), at.file, at.start])
            dtype = str(tensor.properties.dtype).removeprefix("torch.")
            index[name] = {"dtype": dtype, "size": list(tensor.size), "chunks": chunks}
        content = json.dumps(index).encode()
        self.folder.write_bytes(INDEX, content)
        self.records[INDEX] = FileRecord(len(content), checksum(content))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


class RawReader(StorageReader):
    """Reads the rows that a load plan asks for.

    Attributes:
        unsound: names of tensors of which numbers were read that are not sound.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.unsound: set[str] = set()
        self.metadata = read_index(checkpoint)

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def read_metadata(self) -> Metadata:
        return self.metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        stored = self.metadata.storage_data
        items = sorted(plan.items, key=lambda item: (stored[item.storage_index].file, stored[item.storage_index].start))
        for name, of_file in groupby(items, key=lambda item: stored[item.storage_index].file):
            with self.checkpoint.folder.reader(name) as file:
                for item in of_file:
                    tensor = self.metadata.state_dict_metadata[item.storage_index.fqn]
                    assert isinstance(tensor, TensorStorageMetadata)
                    chunk = next(c for c in tensor.chunks if c.offsets == item.storage_index.offset)
                    target = planner.resolve_tensor(item).detach()
                    start, dtype = stored[item.storage_index].start, tensor.properties.dtype
                    read_region(file, start, chunk.sizes, dtype, item.storage_offsets, target)
                    if not is_sound(target, as_weights=is_weight(item.storage_index.fqn)):
                        self.unsound.add(item.storage_index.fqn)
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


def read_index(checkpoint: Checkpoint) -> Metadata:
    """Names, dtypes, sizes and places of all tensors of a checkpoint."""
    tensors, stored = {}, {}
    for name, entry in json.loads(checkpoint.folder.read_bytes(INDEX)).items():
        chunks = []
        for offsets, sizes, file, start in entry["chunks"]:
            assert file in checkpoint.files, f"{INDEX} names {file}, which is no file of {checkpoint.folder}"
            chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
            stored[MetadataIndex(name, offsets)] = Stored(file, start)
        dtype = getattr(torch, entry["dtype"])
        assert isinstance(dtype, torch.dtype)
        tensors[name] = TensorStorageMetadata(TensorProperties(dtype), torch.Size(entry["size"]), chunks)
    return Metadata(tensors, storage_data=stored)
