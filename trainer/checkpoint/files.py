"""Checkpoints as files: which are there, whether they are whole, which may go.

    checkpoints/step_000001000/
        rank_00000_5f3a91c2.bin   raw tensor values, one file a rank
        tensors.json              where in these files each tensor lies
        complete.json             position, facts, and the size and checksum of the files; written last

A folder without complete.json is not a checkpoint. Imports no torch: what is in the files is `storage`'s.
"""

import json
import logging
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from trainer.file_record import FileRecord, checksum, record_of
from trainer.run.folder import Folder
from trainer.run.position import Position

COMPLETE = "complete.json"
DAMAGED = "damaged.json"
FORMAT = 1
log = logging.getLogger(__name__)
_STEP = re.compile(r"step_(\d{9,})")
_KEYS = {*Position._fields, "world_size", "facts", "extra", "files"}
_FILE_NAME = re.compile(r"[\w-][\w.-]*")


@dataclass(frozen=True)
class Checkpoint:
    """What complete.json says.

    Args:
        world_size: ranks that wrote it.
        facts: what the run knew of itself: fingerprints of config and manifest, versions.
        extra: JSON values that were saved beside the tensors.
        files: by name, in `folder`.
    """

    folder: Folder
    position: Position
    world_size: int
    facts: dict[str, Any]
    extra: dict[str, Any]
    files: dict[str, FileRecord]

    @property
    def step(self) -> int:
        return self.position.step

    @property
    def size(self) -> int:
        return sum(record.size for record in self.files.values())


def folder_name(step: int) -> str:
    return f"step_{step:09d}"


def write_complete(checkpoint: Checkpoint) -> None:
    """Makes a folder a checkpoint; atomic."""
    content = {
        "format": FORMAT,
        **checkpoint.position._asdict(),
        "world_size": checkpoint.world_size,
        "facts": checkpoint.facts,
        "extra": checkpoint.extra,
        "files": {name: asdict(record) for name, record in sorted(checkpoint.files.items())},
    }
    content["digest"] = checksum(json.dumps(content, sort_keys=True).encode())
    checkpoint.folder.sync()
    checkpoint.folder.write_bytes(COMPLETE, json.dumps(content, indent=1).encode())


def read_complete(folder: Folder) -> Checkpoint:
    """Raises ValueError when complete.json is not as it was written, FileNotFoundError when there is none."""
    try:
        content = json.loads(folder.read_bytes(COMPLETE))
        digest = content.pop("digest")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder}/{COMPLETE} is cut or damaged: {error}") from error
    if digest != checksum(json.dumps(content, sort_keys=True).encode()):
        raise ValueError(f"{folder}/{COMPLETE} is damaged: its digest does not match")
    if content.get("format") != FORMAT:
        raise ValueError(f"{folder}/{COMPLETE} has format {content.get('format')}, this version reads {FORMAT}")
    if missing := _KEYS - set(content):
        raise ValueError(f"{folder}/{COMPLETE} has no {', '.join(sorted(missing))}")
    for name in content["files"]:
        if not _FILE_NAME.fullmatch(name):
            raise ValueError(f"{folder}/{COMPLETE} names {name!r}, which is no file of the checkpoint")
    return Checkpoint(
        folder=folder,
        position=Position(content["step"], content["epoch"], content["epoch_step"]),
        world_size=content["world_size"],
        facts=content["facts"],
        extra=content["extra"],
        files={name: FileRecord(**record) for name, record in content["files"].items()},
    )


def find(directory: Folder) -> tuple[list[Checkpoint], dict[Folder, str]]:
    """Complete checkpoints, newest first, and by folder what is wrong with those whose complete.json is damaged."""
    complete, damaged = [], {}
    for step in sorted(_steps(directory), reverse=True):
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
    found = {}
    for name in checkpoint.files if names is None else names:
        record, path = checkpoint.files[name], f"{checkpoint.folder}/{name}"
        try:
            size = checkpoint.folder.size(name)
            if size != record.size:
                found[name] = f"{path} has {size:,} bytes instead of {record.size:,}"
            elif _record(checkpoint.folder, name) != record:
                found[name] = f"{path} does not match its checksum"
        except FileNotFoundError:
            found[name] = f"{path} is missing"
        except OSError as error:
            found[name] = f"{path} cannot be read: {error}"
    return found


def set_aside(folder: Folder) -> None:
    """A damaged checkpoint no longer counts as one; its files stay until a newer one is complete."""
    if folder.exists(COMPLETE):
        with suppress(PermissionError):  # it is found damaged again, by whoever may write there
            folder.rename(COMPLETE, DAMAGED)


def prune(directory: Folder, step: int, keep: int) -> None:
    """Keeps the `keep` newest complete checkpoints up to `step`, and nothing incomplete before it.

    Later steps are left alone: they belong to a run that was taken back, and will be written again.
    """
    steps = [s for s in sorted(_steps(directory), reverse=True) if s <= step]
    kept = 0
    for folder in (directory.child(folder_name(s)) for s in steps):
        if kept < keep and folder.exists(COMPLETE):
            kept += 1
            continue
        delete(folder)


def delete(folder: Folder) -> None:
    """Deletes a checkpoint, or what was begun of one. Where that fails, the next save tries again."""
    try:
        folder.remove(COMPLETE)  # first: a crash half-way must not leave what looks like a checkpoint
        folder.remove_all()
    except OSError as error:  # on NFS, a file that another process reads
        log.warning("%s is no longer needed, but cannot be deleted: %s", folder, error)


def _steps(directory: Folder) -> list[int]:
    return [int(match[1]) for name in directory.names() if (match := _STEP.fullmatch(name))]


def _record(folder: Folder, name: str) -> FileRecord:
    with folder.reader(name) as file:
        return record_of(file)
