"""Whole tensors of a saved state, in one process: for what is small, whoever wrote it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from trainer.checkpoint.chain import State
from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.links import whole_tensors
from trainer.checkpoint.storage import read_index
from trainer.checkpoint.values import read_region
from trainer.run.saved_names import WINDOW, section


def windows(state: State) -> list[dict[str, Tensor]]:
    """What each rank kept of the steps since the last log line; empty where a former version saved nothing of it."""
    by_rank: dict[int, dict[str, Tensor]] = {}
    for name, value in _whole(state, lambda name: section(name) == WINDOW).items():
        _, rank, inside = name.split("/", 2)
        by_rank.setdefault(int(rank), {})[inside] = value
    return [by_rank[rank] for rank in sorted(by_rank)]


def _whole(state: State, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Of tensors that are not saved by rows."""
    if state.links:
        end = state.links[-1]
        return dict(whole_tensors(end, {entry.name for entry in end.whole if wanted(entry.name)}))
    return {name: _read(state.base, name) for name in read_index(state.base).state_dict_metadata if wanted(name)}


def _read(base: Checkpoint, name: str) -> Tensor:
    index = read_index(base)
    entry = index.state_dict_metadata[name]
    assert isinstance(entry, TensorStorageMetadata)
    whole = torch.empty(entry.size, dtype=entry.properties.dtype)
    for place, at in index.storage_data.items():
        if place.fqn == name:
            chunk = next(chunk for chunk in entry.chunks if chunk.offsets == place.offset)
            target = whole
            for dim, (offset, size) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
                target = target.narrow(dim, offset, size)
            with base.folder.reader(at.file) as file:
                read_region(file, at.start, chunk.sizes, entry.properties.dtype, [0] * len(chunk.sizes), target)
    return whole
