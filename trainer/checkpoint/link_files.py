"""Links, what changed since the state before, as files. A chain of them stands behind a base.

    checkpoints/deltas/step_000001010_attempt_3/
        rows_00000_5f3a91c2.bin    one a rank: the rows of its table shards that changed, with their optimizer state
        whole_00000_5f3a91c2.bin   one a rank: what is small, or changes whole; only where a chain may end
        complete.json              position, the link or base before it, what lies where, sizes and checksums

A link names what it follows by digest, not by step: steps repeat after a restart. What is in the files is `links`'
business, and which links make a chain `chain`'s. Imports no torch.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.checkpoint.marks import files_as_json, read_mark, write_mark
from trainer.file_record import FileRecord
from trainer.run.folder import Folder
from trainer.run.position import Position

FOLDER = "deltas"
FORMAT = 1
_NAME = re.compile(r"step_(\d{9,})_attempt_(\d+)")
_KEYS = {*Position._fields, "world_size", "attempt", "number", "predecessor", "extra", "files", "rows", "whole"}
_WHOLE = "whole_"


class RowsEntry(NamedTuple):
    """Rows of one tensor in one file: `count` row numbers, ascending, and their values.

    Rows and columns count in the whole tensor, so that a reader needs not know how many ranks wrote it.
    """

    name: str
    file: str
    rows_at: int  # byte of the row numbers, int64
    values_at: int  # byte of the values, [count, width], or [count] if width is 0
    count: int
    column: int
    width: int
    dtype: str

    @property
    def bytes(self) -> int:
        """A width of 0 counts as one column."""
        return self.count * max(self.width, 1)


class WholeEntry(NamedTuple):
    """A whole tensor in one file."""

    name: str
    file: str
    at: int
    dtype: str
    size: list[int]


@dataclass(frozen=True)
class Link:
    """What complete.json of a link says.

    Args:
        number: its place in the chain, counted on from base to base.
        predecessor: digest of the link or base that it follows.
        digest: its own.
        ends: whether the whole parts are there, so that a chain may end here.
    """

    folder: Folder
    position: Position
    world_size: int
    attempt: int
    number: int
    predecessor: str
    extra: dict[str, Any]
    files: dict[str, FileRecord]
    rows: tuple[RowsEntry, ...]
    whole: tuple[WholeEntry, ...]
    digest: str = ""
    ends: bool = True

    @property
    def step(self) -> int:
        return self.position.step

    @property
    def size(self) -> int:
        return sum(self.files[name].size for name in self.needed(is_end=self.ends))

    def needed(self, *, is_end: bool) -> list[str]:
        """Files without which it is not whole: those of whole tensors only where a chain ends."""
        return [name for name in self.files if is_end or not name.startswith(_WHOLE)]


def folder_name(step: int, attempt: int) -> str:
    return f"step_{step:09d}_attempt_{attempt}"


def file_names(rank: int, token: str) -> tuple[str, str]:
    """Of the rows and of the whole tensors of one rank; `token` is another one for each try."""
    return f"rows_{rank:05d}_{token}.bin", f"{_WHOLE}{rank:05d}_{token}.bin"


def write_link(link: Link) -> str:
    """Makes the link count; returns its digest."""
    content = {"format": FORMAT, **link.position._asdict(), **{key: getattr(link, key) for key in _PLAIN}}
    content |= {"files": files_as_json(link.files), "rows": list(map(list, link.rows))}
    return write_mark(link.folder, {**content, "whole": list(map(list, link.whole))})


_PLAIN = ("world_size", "attempt", "number", "predecessor", "extra")


def read_link(folder: Folder) -> Link:
    """Raises ValueError when complete.json is not as it was written, FileNotFoundError when there is none."""
    content, digest = read_mark(folder, (FORMAT,), _KEYS)
    rows = tuple(RowsEntry(*entry) for entry in content["rows"])
    whole = tuple(WholeEntry(*entry) for entry in content["whole"])
    for entry in (*rows, *whole):
        if entry.file not in content["files"]:
            raise ValueError(f"{folder} names {entry.file}, which is no file of it")
    there = set(folder.names())
    return Link(
        folder=folder,
        position=Position(content["step"], content["epoch"], content["epoch_step"]),
        **{key: content[key] for key in _PLAIN},
        files=content["files"],
        rows=rows,
        whole=whole,
        digest=digest,
        ends=all(name in there for name in content["files"] if name.startswith(_WHOLE)),
    )


def find_links(checkpoints: Folder, beyond: int = -1) -> tuple[list[Link], dict[Folder, str]]:
    """Complete links of steps beyond one, in no order, and by folder what is wrong with a complete.json of them."""
    found, damaged = [], {}
    for folder in (folder for folder in link_folders(checkpoints) if step_of(folder) > beyond):
        try:
            found.append(read_link(folder))
        except FileNotFoundError:
            continue
        except (ValueError, TypeError, IsADirectoryError) as error:
            damaged[folder] = str(error)
    return found, damaged


def link_folders(checkpoints: Folder) -> Iterator[Folder]:
    """Of all links, complete or not."""
    folder = checkpoints.child(FOLDER)
    return (folder.child(name) for name in folder.names() if _NAME.fullmatch(name))


def step_of(folder: Folder) -> int:
    match = _NAME.fullmatch(folder.path.rsplit("/", 1)[-1])
    assert match, folder
    return int(match[1])


def file_bytes(folder: Folder, name: str) -> npt.NDArray[np.uint8]:
    """The bytes of a file, mapped where they can be; what is written to them stays here."""
    if folder.is_local and folder.size(name):
        return np.memmap(f"{folder.path}/{name}", np.uint8, "c")
    return np.frombuffer(bytearray(folder.read_bytes(name)), np.uint8)


def drop_whole(link: Link) -> None:
    """No chain may end at this link any more, which leaves it the small part."""
    for name in link.files:
        if name.startswith(_WHOLE):
            link.folder.remove(name)
