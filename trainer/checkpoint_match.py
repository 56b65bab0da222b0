"""Whether the state of a run fits a checkpoint: same names, sizes and types. Said before a value is read."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from configs.errors import UserError
from trainer.checkpoint_files import Checkpoint

_SHOWN = 10


def refuse_mismatch(state: Mapping[str, Any], checkpoint: Checkpoint, stored: Metadata) -> None:
    """A section of names, the part before the first slash, is loaded whole or not at all.

    Raises:
        UserError: names what differs.
    """
    lines = [*_names(state, checkpoint, stored), *_shapes(state, stored)]
    if lines:
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise UserError(
            f"the model does not fit {checkpoint.folder}: {'; '.join(lines[:_SHOWN])}{more}\n"
            "resume with the tables, model and optimizers that the run was started with, or start another run"
        )


def _names(state: Mapping[str, Any], checkpoint: Checkpoint, stored: Metadata) -> Iterator[str]:
    sections = {_section(name) for name in state}
    there = {name for name in (*stored.state_dict_metadata, *checkpoint.extra) if _section(name) in sections}
    yield from (f"{name} is not in the checkpoint" for name in sorted(set(state) - there))
    yield from (f"{name} is in the checkpoint but not in this run" for name in sorted(there - set(state)))


def _shapes(state: Mapping[str, Any], stored: Metadata) -> Iterator[str]:
    for name, value in state.items():
        entry = stored.state_dict_metadata.get(name)
        if isinstance(entry, TensorStorageMetadata) and isinstance(value, Tensor):
            was, now = _type(entry.properties.dtype, entry.size), _type(value.dtype, value.size())
            if was != now:
                yield f"{name} is {was} in the checkpoint but {now} in this run"


def _section(name: str) -> str:
    return name.split("/", 1)[0]


def _type(dtype: Any, size: Any) -> str:
    return f"{str(dtype).removeprefix('torch.')}{list(size)}"
