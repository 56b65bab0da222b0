"""The next base, made of a base and the links behind it, out of files alone: training does not stop for it.

A process of low priority does it (`python -m trainer.checkpoint.merge`), block by block, in memory that does not grow
with the tables. The new base has the layout of the old one, with rows and whole tensors of the links put over it, and
equals a full copy of the state bit for bit. When it is due is `checkpointer`'s business. Imports no torch.
"""

import json
import os
import secrets
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.checkpoint import files
from trainer.checkpoint.attempts import FOLDER as ATTEMPTS
from trainer.checkpoint.attempts import Attempt
from trainer.checkpoint.chain import State
from trainer.checkpoint.files import INDEX, Checkpoint
from trainer.checkpoint.link_files import FOLDER as DELTAS
from trainer.checkpoint.link_files import Link, RowsEntry, file_bytes, find_links, read_link
from trainer.checkpoint.marks import COMPLETE, problems
from trainer.checkpoint.sink import Sink
from trainer.file_record import FileRecord, checksum
from trainer.run.folder import Folder
from trainer.run.saved_names import table_of

_BLOCK_BYTES = 4 << 20
_SIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "uint8": 1, "bool": 1}


class _Chunk(NamedTuple):
    """A part of a tensor in a base's file."""

    name: str
    offsets: list[int]
    sizes: list[int]
    at: int
    dtype: str

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.sizes[1:], dtype=np.int64)) * _SIZES[self.dtype]


def merge(checkpoints: Folder, state: State, attempt: Attempt, go_on: Callable[[], None] = lambda: None) -> Checkpoint:
    """The base of the state at the chain's end.

    Args:
        go_on: called before each block; raises to end the merge.

    Raises:
        ValueError: a file of base or chain is not as it was written.
        SupersededError: a newer attempt is there.
    """
    target = state.end
    if isinstance(target, Checkpoint):
        return target
    _check(state)
    folder = checkpoints.child(files.folder_name(target.step))
    folder.make()
    for name in sorted(folder.names(), key=lambda name: name != COMPLETE):
        folder.remove(name)
    index = json.loads(state.base.folder.read_bytes(INDEX))
    writer = _BaseWriter(folder, go_on)
    for file, chunks in sorted(_kept_chunks(index, target).items()):
        writer.copy_over(state.base.folder, file, chunks, _updates(state.links))
    writer.add_whole(target)
    writer.add_index()
    attempt.refuse_if_superseded(f"{folder}, merged,")
    made = Checkpoint(
        folder,
        target.position,
        state.base.world_size,
        state.base.facts,
        target.extra,
        writer.records,
        attempt.number or target.attempt,
        merged_from=target.digest,
    )
    files.write_complete(made)
    return files.read_complete(folder)


def _check(state: State) -> None:
    wrong = files.problems(state.base)
    for link in state.links:
        wrong |= problems(link.folder, link.files, link.needed(is_end=link is state.end))
    if wrong:
        raise ValueError("; ".join(wrong.values()))


def _kept_chunks(index: dict[str, Any], target: Link) -> dict[str, list[_Chunk]]:
    """By file: what of the old base goes on, in the order in which it lies there. The rest is whole in the link."""
    whole = {entry.name for entry in target.whole}
    kept = defaultdict(list)
    for name, entry in index.items():
        if name in whole or table_of(name) is None:
            continue
        for offsets, sizes, file, at in entry["chunks"]:
            kept[file].append(_Chunk(name, offsets, sizes, at, entry["dtype"]))
    return {file: sorted(chunks, key=lambda chunk: chunk.at) for file, chunks in kept.items()}


class _Update(NamedTuple):
    rows: npt.NDArray[np.int64]
    values: npt.NDArray[np.uint8]  # [n, bytes]
    entry: RowsEntry


def _updates(links: Sequence[Link]) -> dict[str, list[_Update]]:
    """By tensor, in the order in which they were trained."""
    found = defaultdict(list)
    for link in links:
        contents = {file: file_bytes(link.folder, file) for file in dict.fromkeys(entry.file for entry in link.rows)}
        for entry in link.rows:
            content, size = contents[entry.file], max(entry.width, 1) * _SIZES[entry.dtype]
            rows = content[entry.rows_at : entry.rows_at + 8 * entry.count].view(np.int64)
            values = content[entry.values_at : entry.values_at + size * entry.count].reshape(entry.count, size)
            found[entry.name].append(_Update(rows, values, entry))
    return found


class _BaseWriter:
    """The files of a new base.

    Attributes:
        records: of what was written, by name.
    """

    def __init__(self, folder: Folder, go_on: Callable[[], None]) -> None:
        self.records: dict[str, FileRecord] = {}
        self._folder, self._go_on, self._token = folder, go_on, secrets.token_hex(4)
        self._index: dict[str, dict[str, Any]] = {}

    def copy_over(self, base: Folder, file: str, chunks: Sequence[_Chunk], updates: dict[str, list[_Update]]) -> None:
        """A file of the old base with the links' rows over it."""
        name = f"merged_{len(self.records):05d}_{self._token}.bin"
        with base.reader(file) as source, self._folder.writer(name) as target:
            sink = Sink(target)
            for chunk in chunks:
                source.seek(chunk.at)
                self._add(chunk.name, chunk.dtype, chunk.offsets, chunk.sizes, name, sink.at)
                self._copy(source, sink, chunk, updates.get(chunk.name, []))
                sink.align()
        self.records[name] = sink.record

    def _copy(self, source: IO[bytes], sink: Sink, chunk: _Chunk, updates: Sequence[_Update]) -> None:
        rows = chunk.sizes[0]
        step = max(1, _BLOCK_BYTES // max(1, chunk.row_bytes))
        edges = np.append(np.arange(0, rows, step), rows)
        places = [np.searchsorted(update.rows, edges + chunk.offsets[0]) for update in updates]
        for block, (first, last) in enumerate(pairwise(edges)):
            self._go_on()
            content = bytearray(source.read(int(last - first) * chunk.row_bytes))
            values = np.frombuffer(content, np.uint8).reshape(int(last - first), chunk.row_bytes)
            for update, place in zip(updates, places, strict=True):
                _put(values, update, int(place[block]), int(place[block + 1]), chunk, int(first))
            sink.write(content)

    def add_whole(self, target: Link) -> None:
        """What the last link has whole."""
        name = f"whole_{self._token}.bin"
        with self._folder.writer(name) as file:
            sink = Sink(file)
            for entry in target.whole:
                size = int(np.prod(entry.size, dtype=np.int64)) * _SIZES[entry.dtype]
                self._add(entry.name, entry.dtype, [0] * len(entry.size), entry.size, name, sink.at)
                sink.write(file_bytes(target.folder, entry.file)[entry.at : entry.at + size].tobytes())
                sink.align()
        self.records[name] = sink.record

    def _add(self, name: str, dtype: str, offsets: list[int], sizes: list[int], file: str, at: int) -> None:
        entry = self._index.setdefault(name, {"dtype": dtype, "size": list(sizes), "chunks": []})
        entry["chunks"].append([offsets, sizes, file, at])
        ends = [offset + size for offset, size in zip(offsets, sizes, strict=True)]
        entry["size"] = [max(pair) for pair in zip(entry["size"], ends, strict=True)]

    def add_index(self) -> None:
        content = json.dumps(self._index).encode()
        self._folder.write_bytes(INDEX, content)
        self.records[INDEX] = FileRecord(len(content), checksum(content))


def _put(values: npt.NDArray[np.uint8], update: _Update, start: int, end: int, chunk: _Chunk, first: int) -> None:
    """Rows of an update that lie in a block, over it; `first`: the block's first row in its chunk."""
    if start == end:
        return
    rows = update.rows[start:end] - (chunk.offsets[0] + first)
    size = _SIZES[chunk.dtype]
    if len(chunk.sizes) < 2:
        values[rows] = update.values[start:end]
        return
    column, width = chunk.offsets[1], chunk.sizes[1]
    left = max(column, update.entry.column)
    right = min(column + width, update.entry.column + update.entry.width)
    if left < right:
        inside = update.values[start:end, (left - update.entry.column) * size : (right - update.entry.column) * size]
        values[rows, (left - column) * size : (right - column) * size] = inside


def command(checkpoints: Folder, state: State, attempt: Attempt) -> list[str]:
    """What starts `main` for these."""
    base, target = (part.folder.path.rsplit("/", 1)[-1] for part in (state.base, state.end))
    arguments = [str(checkpoints), base, target, str(attempt.number), str(os.getpid())]
    return [sys.executable, "-m", "trainer.checkpoint.merge", *arguments]


def main(checkpoints: str, base: str, target: str, attempt: str, parent: str) -> None:
    """Merges, as long as `parent` lives and does not ask otherwise by ending it."""
    os.nice(19)
    folder = Folder(checkpoints)

    def go_on() -> None:
        if os.getppid() != int(parent):
            raise SystemExit("the process that asked for it has ended")

    former = files.read_complete(folder.child(base))
    links = [link for link in find_links(folder)[0] if link.step > former.step]
    state = State(former, _chain_to(read_link(folder.child(f"{DELTAS}/{target}")), links))
    merge(folder, state, Attempt(folder.child(ATTEMPTS), int(attempt)), go_on)


def _chain_to(target: Link, links: Sequence[Link]) -> tuple[Link, ...]:
    """Of `links`, those that lead to `target`, and `target`."""
    known = {link.digest: link for link in links}
    chain = [target]
    while (former := known.get(chain[-1].predecessor)) is not None:
        chain.append(former)
    return tuple(reversed(chain))


if __name__ == "__main__":
    main(*sys.argv[1:])
