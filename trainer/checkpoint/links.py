"""A link's tensors: rows that changed are copied, and written beside what is whole.

Rows are named by their number in the whole table, so any number of ranks reads what any other number wrote. Which rows
changed is `embeddings.row_log`'s business, the files' names and the mark `link_files`', reading `link_load`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor
from torch.distributed.tensor import DTensor

from embeddings.tables import local_shards
from trainer.checkpoint.link_files import RowsEntry, WholeEntry, file_names
from trainer.checkpoint.sink import Sink
from trainer.checkpoint.values import write_values
from trainer.file_record import FileRecord
from trainer.run.folder import Folder
from trainer.run.saved_names import is_weight, table_of


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


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
