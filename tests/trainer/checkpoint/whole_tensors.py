"""Whole tensors of a checkpoint in one process, from however many ranks wrote them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.storage import RawReader


def read_tensors(checkpoint: Checkpoint, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """Needs no process group."""
    reader, tensors = RawReader(checkpoint), {}
    for name, entry in reader.metadata.state_dict_metadata.items():
        assert isinstance(entry, TensorStorageMetadata)
        if wanted(name):
            tensors[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    load(tensors, storage_reader=reader, planner=planner, no_dist=True)
    return tensors
