"""Bases, whole checkpoints, as files: which are there, whether they are whole, how they go.

    checkpoints/step_000001000/
        rank_00000_5f3a91c2.bin   raw tensor values, one file a rank
        tensors.json              where in these files each tensor lies
        complete.json             position, facts, and the size and checksum of the files; written last

A folder without complete.json is not a checkpoint. What is in the files is `storage`'s business, the links behind a
base `link_files`', and which state a run goes on from `chain`'s. Imports no torch.
"""

import logging
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trainer.checkpoint import marks
from trainer.checkpoint.marks import COMPLETE, files_as_json, read_mark, write_mark
from trainer.file_record import FileRecord
from trainer.run.folder import Folder
from trainer.run.position import Position

DAMAGED = "damaged.json"
INDEX = "tensors.json"
FORMAT = 2
_FORMATS = (1, FORMAT)  # 1 knows no attempts and no links
log = logging.getLogger(__name__)
_STEP = re.compile(r"step_(\d{9,})")
_KEYS = {*Position._fields, "world_size", "facts", "extra", "files"}


@dataclass(frozen=True)
class Checkpoint:
    """What complete.json says.

    Args:
        world_size: ranks that wrote it.
        facts: what the run knew of itself: fingerprints of config and manifest, versions.
        extra: JSON values that were saved beside the tensors.
        files: by name, in `folder`.
        attempt: that wrote it; 0: before attempts were numbered.
        merged_from: the digest of the link of which it has the state, if it was merged from one.
        digest: of complete.json, by which a link names it.
    """

    folder: Folder
    position: Position
    world_size: int
    facts: dict[str, Any]
    extra: dict[str, Any]
    files: dict[str, FileRecord]
    attempt: int = 0
    merged_from: str | None = None
    digest: str = ""

    @property
    def step(self) -> int:
        return self.position.step

    @property
    def size(self) -> int:
        return sum(record.size for record in self.files.values())


def folder_name(step: int) -> str:
    return f"step_{step:09d}"


def write_complete(checkpoint: Checkpoint) -> str:
    """Makes a folder a checkpoint; atomic. Returns its digest."""
    return write_mark(
        checkpoint.folder,
        {
            "format": FORMAT,
            **checkpoint.position._asdict(),
            "world_size": checkpoint.world_size,
            "attempt": checkpoint.attempt,
            "merged_from": checkpoint.merged_from,
            "facts": checkpoint.facts,
            "extra": checkpoint.extra,
            "files": files_as_json(checkpoint.files),
        },
        indent=1,
    )


def read_complete(folder: Folder) -> Checkpoint:
    """Raises ValueError when complete.json is not as it was written, FileNotFoundError when there is none."""
    content, digest = read_mark(folder, _FORMATS, _KEYS)
    return Checkpoint(
        folder=folder,
        position=Position(content["step"], content["epoch"], content["epoch_step"]),
        world_size=content["world_size"],
        facts=content["facts"],
        extra=content["extra"],
        files=content["files"],
        attempt=content.get("attempt", 0),
        merged_from=content.get("merged_from"),
        digest=digest,
    )


def find(directory: Folder) -> tuple[list[Checkpoint], dict[Folder, str]]:
    """Complete checkpoints, newest first, and by folder what is wrong with those whose complete.json is damaged."""
    complete, damaged = [], {}
    for step in sorted(steps_of(directory), reverse=True):
        folder = directory.child(folder_name(step))
        try:
            complete.append(read_complete(folder))
        except FileNotFoundError:
            continue
        except (ValueError, IsADirectoryError) as error:
            damaged[folder] = str(error)
    return complete, damaged


def problems(checkpoint: Checkpoint, names: Iterable[str] | None = None) -> dict[str, str]:
    """File name -> what is wrong with it, by size and checksum, of all files or of some. Reads them whole."""
    return marks.problems(checkpoint.folder, checkpoint.files, None if names is None else list(names))


def set_aside(folder: Folder) -> None:
    """A damaged checkpoint, or link, no longer counts as one; its files stay until a newer one is complete."""
    if folder.exists(COMPLETE):
        with suppress(PermissionError):  # it is found damaged again, by whoever may write there
            folder.rename(COMPLETE, DAMAGED)


def delete(folder: Folder) -> None:
    """Deletes a checkpoint, or what was begun of one. Where that fails, the next save tries again."""
    try:
        folder.remove(COMPLETE)  # first: a crash half-way must not leave what looks like a checkpoint
        folder.remove_all()
    except OSError as error:  # on NFS, a file that another process reads
        log.warning("%s is no longer needed, but cannot be deleted: %s", folder, error)


def steps_of(directory: Folder) -> list[int]:
    """Of all folders of checkpoints, complete or not."""
    return [int(match[1]) for name in directory.names() if (match := _STEP.fullmatch(name))]
