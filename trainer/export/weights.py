"""From a checkpoint to weights.safetensors: tables stacked, then the top, a block of rows at a time.

Tables may be larger than the memory: rows are read from the checkpoint's files in blocks of a few MiB, put into the
row format of the bundle and written; nothing else of them stays but the rows that the parity check asks for. The file
format is safetensors (https://huggingface.co/docs/safetensors): the length of a JSON header, the header, raw values.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

from configs.schema import Config, SparseFeature
from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.finite import refuse_to_load
from trainer.checkpoint.regions import Regions
from trainer.ranks.agreement import Agreement
from trainer.run import saved_names
from trainer.serving.row_formats import RowFormat, encode, stored_as
from trainer.serving.signature import Group, Weight

_BLOCK_BYTES = 8 << 20  # of the rows that are in memory at a time, in fp32
_SAFETENSORS = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float64": "F64",
    "int64": "I64",
    "bool": "BOOL",
    "uint8": "U8",
}
_TOP = "top."  # before the names of the top's weights in the bundle
_ALIGNMENT = 64


def table_groups(config: Config, row_format: RowFormat | None = None) -> list[Group]:
    """The tables that features use, stacked by row format and width. row_format: of all; None: as trained."""
    features = config.sparse_features
    used = {name: t for name, t in config.tables.items() if any(f.table == name for f in features.values())}
    kinds: dict[str, tuple[RowFormat, int]] = {
        name: (row_format or t.data_type, t.embedding_dim) for name, t in used.items()
    }
    groups = []
    for kind, width in sorted(set(kinds.values())):
        tables = {name: t for name, t in used.items() if kinds[name] == (kind, width)}
        names = [name for name in features if features[name].table in tables]
        starts = dict(zip(tables, _starts([t.num_embeddings for t in tables.values()]), strict=False))
        groups.append(_group(kind, tables, {name: features[name] for name in names}, starts))
    return groups


def _group(kind: RowFormat, tables: Mapping, features: Mapping[str, SparseFeature], starts: Mapping[str, int]) -> Group:
    width = next(iter(tables.values())).embedding_dim
    return Group(
        name=f"tables.{kind}.{width}",
        embedding_dim=width,
        row_format=kind,
        features=tuple(features),
        first_rows=tuple(starts[f.table] for f in features.values()),
        rows=tuple(tables[f.table].num_embeddings for f in features.values()),
        mean=tuple(tables[f.table].pooling == "mean" for f in features.values()),
        weighted=any(f.weights is not None for f in features.values()),
    )


def _starts(lengths: Sequence[int]) -> list[int]:
    """Where each of consecutive parts starts, and where the last ends."""
    return [sum(lengths[:i]) for i in range(len(lengths) + 1)]


class KeptRows:
    """Some rows of a table, as they were trained: `kept[ids]`, as of the whole table."""

    def __init__(self, ids: npt.NDArray[np.int64], width: int) -> None:
        """ids: in order, each once."""
        self.ids, self.rows = ids, torch.empty(len(ids), width)

    def keep(self, first: int, block: Tensor) -> None:
        """Takes what it keeps of the rows from `first` on."""
        low, high = np.searchsorted(self.ids, (first, first + len(block)))
        self.rows[low:high] = block[torch.from_numpy(self.ids[low:high] - first)]

    def __getitem__(self, ids: Tensor) -> Tensor:
        return self.rows[torch.from_numpy(np.searchsorted(self.ids, ids.numpy()))]


class Stored(NamedTuple):
    """What `write_weights` wrote.

    weights: names, types and shapes, in the order in which the program takes them.
    table_digests: table -> xxh3-128 of its stored rows, in hex.
    top: the top's state dict as it was trained.
    """

    weights: list[Weight]
    table_digests: dict[str, str]
    top: dict[str, Tensor]


def write_weights(
    path: Path,
    config: Config,
    groups: Sequence[Group],
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    kept: Mapping[str, KeptRows],
    reserved: Sequence[Weight] = (),
) -> Stored:
    """Writes tables and top of `checkpoint` to `path`.

    Args:
        dtype: of the top's floating-point weights.
        kept: table -> what is to be kept of it.
        reserved: what comes after the top; `fill` writes it.

    Raises:
        DivergedError: the checkpoint holds NaN or infinite numbers.
    """
    with Regions(checkpoint) as stored, path.open("wb") as file:
        in_top = [name for name in map(saved_names.name_in_top, stored.names) if name is not None]
        top = {name: stored.whole(saved_names.top(name)) for name in in_top}
        cast = {name: t.to(dtype) if t.is_floating_point() else t for name, t in top.items()}
        tables = [_stack(group, config) for group in groups]
        weights = tables + [weight_of(_TOP + name, tensor) for name, tensor in cast.items()] + list(reserved)
        places = _write_header(file, sorted(weights, key=lambda w: -getattr(torch, w.dtype).itemsize))
        for name, tensor in cast.items():
            file.seek(places[_TOP + name])
            file.write(_bytes_of(tensor))
        digests = {}
        for group, stack in zip(groups, tables, strict=True):
            row_bytes = stack.shape[1] * getattr(torch, stack.dtype).itemsize
            for name, first in _tables_of(group, config).items():
                file.seek(places[group.name] + first * row_bytes)
                digests[name] = _write_table(file, stored, name, group.row_format, kept.get(name))
        refuse_to_load(stored.unsound, (), checkpoint.folder, Agreement())
    return Stored(weights, digests, top)


def fill(path: Path, values: Mapping[str, Tensor]) -> None:
    """Writes reserved tensors into their places."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name, tensor in values.items():
            file.seek(8 + length + header[name]["data_offsets"][0])
            file.write(_bytes_of(tensor))


def _write_table(file: IO[bytes], stored: Regions, name: str, row_format: RowFormat, kept: KeptRows | None) -> str:
    digest = xxhash.xxh3_128()
    for first, block in _blocks(stored, saved_names.table(name)):
        content = _bytes_of(encode(block, row_format))
        digest.update(content)
        file.write(content)
        if kept is not None:
            kept.keep(first, block.float())
    return digest.hexdigest()


def _blocks(stored: Regions, name: str) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows in their own type) of consecutive blocks."""
    rows, width = stored.size(name)
    step = max(1, _BLOCK_BYTES // (4 * width))
    return ((first, stored.rows(name, first, min(step, rows - first))) for first in range(0, rows, step))


def _tables_of(group: Group, config: Config) -> dict[str, int]:
    """Table -> its first row in the stack of its group."""
    named = zip(group.features, group.first_rows, strict=True)
    return {config.sparse_features[feature].table: first for feature, first in named}


def _stack(group: Group, config: Config) -> Weight:
    rows = sum(config.tables[name].num_embeddings for name in _tables_of(group, config))
    dtype, width = stored_as(group.row_format, group.embedding_dim)
    return Weight(name=group.name, dtype=str(dtype).removeprefix("torch."), shape=(rows, width))


def weight_of(name: str, tensor: Tensor) -> Weight:
    """The record of a tensor."""
    return Weight(name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _write_header(file: IO[bytes], weights: Sequence[Weight]) -> dict[str, int]:
    """Writes the header of a safetensors file, gives it its length, and returns where each tensor starts. Every tensor
    must start at a multiple of its type's size: they come by falling size of their type."""
    ends = _starts([math.prod(w.shape) * getattr(torch, w.dtype).itemsize for w in weights])
    header = {
        w.name: {"dtype": _SAFETENSORS[w.dtype], "shape": list(w.shape), "data_offsets": [start, end]}
        for w, start, end in zip(weights, ends[:-1], ends[1:], strict=True)
    }
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    file.truncate(len(text) + 8 + ends[-1])
    return {w.name: len(text) + 8 + start for w, start in zip(weights, ends[:-1], strict=True)}
