"""Any part of any tensor of a checkpoint, in one process, whatever ranks wrote it.

A run that resumes loads all of its state by the plan of torch.distributed.checkpoint (`checkpointer`). Here whoever
wants something else reads it: blocks of rows for a bundle, the rows that a larger table takes over.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Self

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata

from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.storage import read_index
from trainer.checkpoint.values import is_sound, read_region
from trainer.run.saved_names import is_weight


class Regions:
    """A context manager: leaving it closes the files.

    Attributes:
        names: of all tensors.
        unsound: names of tensors of which numbers were read that are NaN, infinite or far too large.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._index = checkpoint, read_index(checkpoint)
        self._files: dict[str, IO[bytes]] = {}
        self._stack = ExitStack()
        self.names = tuple(self._index.state_dict_metadata)
        self.unsound: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def size(self, name: str) -> tuple[int, ...]:
        return tuple(self._entry(name).size)

    def whole(self, name: str) -> Tensor:
        entry = self._entry(name)
        return self.read(name, [0] * len(entry.size), torch.empty(entry.size, dtype=entry.properties.dtype))

    def rows(self, name: str, first: int, count: int) -> Tensor:
        """Rows [first, first + count), in the type in which they are stored."""
        entry = self._entry(name)
        target = torch.empty((count, *entry.size[1:]), dtype=entry.properties.dtype)
        return self.read(name, [first, *[0] * (len(entry.size) - 1)], target)

    def read(self, name: str, offsets: Sequence[int], target: Tensor) -> Tensor:
        """Fills `target`, of any device and type, with the part of the tensor at `offsets` that has its shape."""
        entry = self._entry(name)
        for chunk in entry.chunks:
            region, inside = target, []
            for dim, (start, length) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
                low = max(offsets[dim], start)
                high = min(offsets[dim] + target.shape[dim], start + length)
                region = region.narrow(dim, min(low - offsets[dim], target.shape[dim]), max(0, high - low))
                inside.append(low - start)
            place = self._index.storage_data[MetadataIndex(name, chunk.offsets)]
            read_region(self._file(place.file), place.start, chunk.sizes, entry.properties.dtype, inside, region)
        if not is_sound(target, as_weights=is_weight(name)):
            self.unsound.add(name)
        return target

    def _entry(self, name: str) -> TensorStorageMetadata:
        entry = self._index.state_dict_metadata[name]
        assert isinstance(entry, TensorStorageMetadata), name
        return entry

    def _file(self, name: str) -> IO[bytes]:
        if name not in self._files:
            self._files[name] = self._stack.enter_context(self._checkpoint.folder.reader(name))
        return self._files[name]
