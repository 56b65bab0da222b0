"""Whether the state of a run fits a checkpoint: same names, sizes and types. Said before a value is read."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.tensor import DTensor
from torchrec.distributed.shards_wrapper import LocalShardsWrapper

from configs.errors import UserError
from trainer.checkpoint.files import Checkpoint
from trainer.ranks.agreement import Agreement
from trainer.run.saved_names import section

_SHOWN = 10


def refuse_mismatch(state: Mapping[str, Any], checkpoint: Checkpoint, stored: Metadata, ranks: Agreement) -> None:
    """A section of names is loaded whole or not at all.

    The names of all ranks count together: the optimizer state of a table is on the ranks that hold it.

    Raises:
        UserError: names what differs; the same on all ranks.
    """
    reports = ranks.gather((set(state), list(_differences(state, checkpoint, stored))))
    names = set().union(*(report[0] for report in reports))
    sections = {section(name) for name in names}
    there = {name for name in (*stored.state_dict_metadata, *checkpoint.extra) if section(name) in sections}
    lines = list(dict.fromkeys(line for report in reports for line in report[1]))
    lines += [f"{name} is in the checkpoint but not in this run" for name in sorted(there - names)]
    if lines:
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise UserError(
            f"the model does not fit {checkpoint.folder}: {'; '.join(lines[:_SHOWN])}{more}\n"
            "resume with the tables, model and optimizers that the run was started with, or start another run"
        )


def _differences(state: Mapping[str, Any], checkpoint: Checkpoint, stored: Metadata) -> Iterator[str]:
    """What this rank has and the checkpoint has not, or has otherwise."""
    for name, value in sorted(state.items()):
        entry = stored.state_dict_metadata.get(name)
        if not isinstance(value, Tensor):
            if name not in checkpoint.extra:
                yield f"{name} is not in the checkpoint"
        elif not isinstance(entry, TensorStorageMetadata):
            yield f"{name} is not in the checkpoint"
        else:
            was, now = entry.properties.dtype, _dtype(value) or entry.properties.dtype
            was, now = _type(was, entry.size), _type(now, value.size())
            if was != now:
                yield f"{name} is {was} in the checkpoint but {now} in this run"


def _dtype(value: Tensor) -> torch.dtype | None:
    """Of the values: TorchRec's sharded tensors claim float32, whatever their shards are. None without a shard."""
    local = value.to_local() if isinstance(value, DTensor) else value
    if not isinstance(local, LocalShardsWrapper):
        return local.dtype
    return next((shard.dtype for shard in local.local_shards()), None)


def _type(dtype: Any, size: Any) -> str:
    return f"{str(dtype).removeprefix('torch.')}{list(size)}"
