"""From a checkpoint to weights.safetensors: tables stacked, then the top, read straight into the mapped file.

Tables may be larger than the memory: rows go from the checkpoint's files to this one in blocks. The file format is
safetensors (https://huggingface.co/docs/safetensors): the length of a JSON header, the header, raw values.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from configs.schema import Config, SparseFeature
from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.finite import refuse_to_load
from trainer.checkpoint.storage import RawReader
from trainer.ranks.agreement import Agreement
from trainer.run import saved_names
from trainer.serving.signature import Group, Weight

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_SAFETENSORS = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float64": "F64",
    "int64": "I64",
    "bool": "BOOL",
}
_TOP = "top."  # before the names of the top's weights in the bundle
_ALIGNMENT = 64


def table_groups(config: Config) -> list[Group]:
    """The tables that features use, stacked by type and width."""
    features = config.sparse_features
    used = {name: t for name, t in config.tables.items() if any(f.table == name for f in features.values())}
    kinds = sorted({(t.data_type, t.embedding_dim) for t in used.values()})
    groups = []
    for data_type, width in kinds:
        tables = {n: t for n, t in used.items() if (t.data_type, t.embedding_dim) == (data_type, width)}
        names = [name for name in features if features[name].table in tables]
        starts = dict(zip(tables, _starts([t.num_embeddings for t in tables.values()]), strict=False))
        groups.append(_group(f"tables.{data_type}.{width}", tables, {name: features[name] for name in names}, starts))
    return groups


def _group(name: str, tables: Mapping, features: Mapping[str, SparseFeature], starts: Mapping[str, int]) -> Group:
    first = next(iter(tables.values()))
    return Group(
        name=name,
        embedding_dim=first.embedding_dim,
        data_type=first.data_type,
        features=tuple(features),
        first_rows=tuple(starts[f.table] for f in features.values()),
        rows=tuple(tables[f.table].num_embeddings for f in features.values()),
        mean=tuple(tables[f.table].pooling == "mean" for f in features.values()),
        weighted=any(f.weights is not None for f in features.values()),
    )


def _starts(lengths: Sequence[int]) -> list[int]:
    """Where each of consecutive parts starts, and where the last ends."""
    return [sum(lengths[:i]) for i in range(len(lengths) + 1)]


class MappedWeights:
    """The tensors of a bundle, mapped into its file as it is written.

    Attributes:
        weights: names, types and shapes, in the order in which the program takes them.
        tensors: the same order; writing to them writes to the file.
        tables: table name -> its rows inside its stack.
        top: the top's state dict.
    """

    def __init__(self, path: Path, config: Config, groups: Sequence[Group], checkpoint: Checkpoint) -> None:
        """Makes the file and fills it from `checkpoint`."""
        reader = RawReader(checkpoint)
        top = _top_weights(reader)
        stacks = [_stack(group, config) for group in groups]
        self.weights = stacks + top
        mapped = _map(path, sorted(self.weights, key=lambda w: -getattr(torch, w.dtype).itemsize))
        self.tensors = [mapped[weight.name] for weight in self.weights]
        self.top = {weight.name.removeprefix(_TOP): mapped[weight.name] for weight in top}
        self.tables: dict[str, Tensor] = {}
        for group in groups:
            for feature, first, rows in zip(group.features, group.first_rows, group.rows, strict=True):
                self.tables[config.sparse_features[feature].table] = mapped[group.name][first : first + rows]
        targets = {saved_names.table(name): rows for name, rows in self.tables.items()}
        targets |= {saved_names.top(name): tensor for name, tensor in self.top.items()}
        planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        load(targets, storage_reader=reader, planner=planner, no_dist=True)
        refuse_to_load(reader.unsound, (), checkpoint, Agreement())


def _stack(group: Group, config: Config) -> Weight:
    tables = {config.sparse_features[name].table for name in group.features}
    rows = sum(config.tables[name].num_embeddings for name in tables)
    dtype = str(_DTYPES[group.data_type]).removeprefix("torch.")
    return Weight(name=group.name, dtype=dtype, shape=(rows, group.embedding_dim))


def _top_weights(reader: RawReader) -> list[Weight]:
    weights = []
    for name, entry in reader.metadata.state_dict_metadata.items():
        of_top = saved_names.name_in_top(name)
        if of_top is not None:
            assert isinstance(entry, TensorStorageMetadata), name
            dtype = str(entry.properties.dtype).removeprefix("torch.")
            weights.append(Weight(name=_TOP + of_top, dtype=dtype, shape=tuple(entry.size)))
    return weights


def _map(path: Path, weights: Sequence[Weight]) -> dict[str, Tensor]:
    """Writes the header of a safetensors file and maps its values. Every tensor must start at a multiple of its type's
    size: they come by falling size of their type."""
    ends = _starts([math.prod(w.shape) * getattr(torch, w.dtype).itemsize for w in weights])
    header = {
        w.name: {"dtype": _SAFETENSORS[w.dtype], "shape": list(w.shape), "data_offsets": [start, end]}
        for w, start, end in zip(weights, ends[:-1], ends[1:], strict=True)
    }
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    first = len(text) + 8
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(first + ends[-1])
    values = torch.from_file(str(path), shared=True, size=first + ends[-1], dtype=torch.uint8)
    return {
        w.name: values[first + start : first + end].view(getattr(torch, w.dtype)).view(w.shape)
        for w, start, end in zip(weights, ends[:-1], ends[1:], strict=True)
    }
