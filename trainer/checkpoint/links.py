"""A link's tensors: rows that changed are copied, written beside what is whole, and put back over a base.

Rows are named by their number in the whole table, so any number of ranks reads what any other number wrote. Which rows
changed is `embeddings.row_log`'s business, the files' names and the mark `link_files`'.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from embeddings.tables import local_shards
from trainer.checkpoint.link_files import Link, RowsEntry, WholeEntry, file_names
from trainer.checkpoint.sink import Sink
from trainer.checkpoint.values import is_sound, write_values
from trainer.file_record import FileRecord
from trainer.run.folder import Folder
from trainer.run.saved_names import is_weight, table_of

_Entry = TypeVar("_Entry", RowsEntry, WholeEntry)


class RowsPart(NamedTuple):
    """Copies of rows of one shard of a tensor."""

    name: str
    rows: Tensor  # [n] int64, numbers in the whole tensor, ascending
    values: Tensor  # [n, columns], or [n]
    column: int  # of the whole tensor, at which the shard begins


@dataclass
class Written:
    """What a rank wrote of a link.

    Attributes:
        unsound: names of tensors with numbers that are NaN, infinite or far too large.
    """

    files: dict[str, FileRecord] = field(default_factory=dict)
    rows: list[RowsEntry] = field(default_factory=list)
    whole: list[WholeEntry] = field(default_factory=list)
    unsound: set[str] = field(default_factory=set)


def split(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(tensors of which a link has rows, all others). Data-parallel tables are among the others."""
    by_rows: dict[str, Tensor] = {
        name: value for name, value in state.items() if table_of(name) and isinstance(value, DTensor)
    }
    return by_rows, {name: value for name, value in state.items() if name not in by_rows}


def copy_rows(by_rows: Mapping[str, Tensor], changed: Mapping[str, Sequence[Tensor]]) -> list[RowsPart]:
    """
    Args:
        changed: table -> rows in each of this rank's shards, by their numbers there.
    """
    parts = []
    for table, of_shards in changed.items():
        known: dict[tuple[int, int], Tensor] = {}
        for name, value in by_rows.items():
            if table_of(name) != table:
                continue
            for number, (shard, offsets) in enumerate(local_shards(value)):
                chosen = of_shards[number]
                if not len(chosen):
                    continue
                values = shard.detach().index_select(0, chosen).cpu()
                key = number, offsets[0]
                if key not in known:
                    known[key] = (chosen + offsets[0]).cpu()
                parts.append(RowsPart(name, known[key], values, offsets[1] if len(offsets) > 1 else 0))
    return parts


def copy_whole(whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in host memory, done when this returns."""
    return {name: value.detach().to("cpu", copy=True) for name, value in whole.items()}


def write_part(folder: Folder, rank: int, token: str, rows: Sequence[RowsPart], whole: Mapping[str, Tensor]) -> Written:
    """Writes this rank's files of a link, and says what is where."""
    written = Written()
    rows_file, whole_file = file_names(rank, token)
    if rows:
        with folder.writer(rows_file) as file:
            written.files[rows_file] = _write_rows(Sink(file), rows_file, rows, written)
    if whole:
        with folder.writer(whole_file) as file:
            written.files[whole_file] = _write_whole(Sink(file), whole_file, whole, written)
    return written


def _write_rows(sink: Sink, file: str, parts: Sequence[RowsPart], written: Written) -> FileRecord:
    places: dict[int, int] = {}
    for part in parts:
        if id(part.rows) not in places:
            places[id(part.rows)] = sink.at
            write_values(sink, part.rows)
        width = part.values.shape[1] if part.values.dim() > 1 else 0
        at = (places[id(part.rows)], sink.at)
        written.rows.append(RowsEntry(part.name, file, *at, len(part.rows), part.column, width, _dtype(part.values)))
        if not write_values(sink, part.values, as_weights=is_weight(part.name)):
            written.unsound.add(part.name)
    return sink.record


def _write_whole(sink: Sink, file: str, whole: Mapping[str, Tensor], written: Written) -> FileRecord:
    for name, value in whole.items():
        written.whole.append(WholeEntry(name, file, sink.at, _dtype(value), list(value.shape)))
        if not write_values(sink, value, as_weights=is_weight(name)):
            written.unsound.add(name)
    return sink.record


def apply(link: Link, state: Mapping[str, Tensor], *, with_whole: bool) -> set[str]:
    """Puts a link's rows over what `state` has, in place, and its whole tensors if asked.

    Returns names of tensors with numbers that are not sound.
    """
    unsound = set()
    wanted = [entry for entry in link.rows if entry.name in state]
    for file, entries in _by_file(wanted):
        content = link.folder.read_bytes(file)
        for entry in entries:
            rows = _tensor(content, entry.rows_at, "int64", [entry.count])
            size = [entry.count, entry.width] if entry.width else [entry.count]
            values = _tensor(content, entry.values_at, entry.dtype, size)
            if not is_sound(values, as_weights=is_weight(entry.name)):
                unsound.add(entry.name)
            _put(state[entry.name], rows, values, entry.column)
    if with_whole:
        for name, value in whole_tensors(link, set(state)):
            state[name].copy_(value)
            if not is_sound(value, as_weights=is_weight(name)):
                unsound.add(name)
    return unsound


def whole_tensors(link: Link, names: set[str]) -> Iterator[tuple[str, Tensor]]:
    """Those of a link's whole tensors that are named."""
    for file, entries in _by_file([entry for entry in link.whole if entry.name in names]):
        content = link.folder.read_bytes(file)
        for entry in entries:
            yield entry.name, _tensor(content, entry.at, entry.dtype, entry.size)


def _put(target: Tensor, rows: Tensor, values: Tensor, column: int) -> None:
    """Into the shards that this rank holds: the rows and columns of each that are in `values`."""
    for shard, offsets in local_shards(target):
        first, last = torch.searchsorted(rows, torch.tensor([offsets[0], offsets[0] + len(shard)])).tolist()
        if first == last:
            continue
        chosen = (rows[first:last] - offsets[0]).to(shard.device)
        inside = values[first:last]
        if shard.dim() == 1:
            shard.index_copy_(0, chosen, inside.to(shard.device))
            continue
        left, right = max(column, offsets[1]), min(column + values.shape[1], offsets[1] + shard.shape[1])
        if left < right:
            columns = shard[:, left - offsets[1] : right - offsets[1]]
            columns.index_copy_(0, chosen, inside[:, left - column : right - column].to(shard.device))


def _by_file(entries: Sequence[_Entry]) -> Iterator[tuple[str, list[_Entry]]]:
    files = dict.fromkeys(entry.file for entry in entries)
    return ((file, [entry for entry in entries if entry.file == file]) for file in files)


def _tensor(content: bytes, at: int, dtype: str, size: list[int]) -> Tensor:
    kind = getattr(torch, dtype)
    assert isinstance(kind, torch.dtype), dtype
    count = 1
    for length in size:
        count *= length
    if not count:
        return torch.empty(size, dtype=kind)
    return torch.frombuffer(bytearray(content[at : at + count * kind.itemsize]), dtype=kind).view(size)


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
