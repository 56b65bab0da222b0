"""The file that makes a folder count: JSON with a digest of itself, written last. Bases and links have one each.

What it says is `files`' and `link_files`' business. Imports no torch.
"""

import json
import re
from collections.abc import Collection
from typing import Any

from trainer.file_record import FileRecord, checksum, record_of
from trainer.run.folder import Folder

COMPLETE = "complete.json"
_FILE_NAME = re.compile(r"[\w-][\w.-]*")


def write_mark(folder: Folder, content: dict[str, Any], indent: int | None = None) -> str:
    """Makes the folder count, at once; returns the digest by which others name it.

    indent: of the JSON. With one it is for people too, and takes Python some milliseconds, in which training waits.
    """
    digest = checksum(json.dumps(content, sort_keys=True).encode())
    folder.sync()
    folder.write_bytes(COMPLETE, json.dumps({**content, "digest": digest}, indent=indent).encode())
    return digest


def read_mark(folder: Folder, formats: Collection[int], keys: Collection[str]) -> tuple[dict[str, Any], str]:
    """What was written, and its digest.

    Args:
        formats: numbers that this version reads.
        keys: that it must have, whatever its format.

    Raises:
        ValueError: it is not as it was written.
        FileNotFoundError: there is none.
    """
    try:
        content = json.loads(folder.read_bytes(COMPLETE))
        digest = content.pop("digest")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder}/{COMPLETE} is cut or damaged: {error}") from error
    if digest != checksum(json.dumps(content, sort_keys=True).encode()):
        raise ValueError(f"{folder}/{COMPLETE} is damaged: its digest does not match")
    if content.get("format") not in formats:
        known = ", ".join(map(str, sorted(formats)))
        raise ValueError(f"{folder}/{COMPLETE} has format {content.get('format')}, this version reads {known}")
    if missing := set(keys) - set(content):
        raise ValueError(f"{folder}/{COMPLETE} has no {', '.join(sorted(missing))}")
    for name in content["files"]:
        if not _FILE_NAME.fullmatch(name):
            raise ValueError(f"{folder}/{COMPLETE} names {name!r}, which is no file of the checkpoint")
    content["files"] = {name: FileRecord(**record) for name, record in content["files"].items()}
    return content, digest


def files_as_json(files: dict[str, FileRecord]) -> dict[str, dict[str, Any]]:
    return {name: {"size": record.size, "checksum": record.checksum} for name, record in sorted(files.items())}


def problems(folder: Folder, files: dict[str, FileRecord], names: Collection[str] | None = None) -> dict[str, str]:
    """File name -> what is wrong with it, by size and checksum, of all files or of some. Reads them whole."""
    found = {name: _problem(folder, name, files[name], reads=True) for name in (files if names is None else names)}
    return {name: problem for name, problem in found.items() if problem}


def has_sizes(folder: Folder, files: dict[str, FileRecord]) -> bool:
    """Whether all files are there with their sizes. Reads none of them."""
    return not any(_problem(folder, name, record, reads=False) for name, record in files.items())


def _problem(folder: Folder, name: str, record: FileRecord, *, reads: bool) -> str | None:
    path = f"{folder}/{name}"
    try:
        size = folder.size(name)
        if size != record.size:
            return f"{path} has {size:,} bytes instead of {record.size:,}"
        if reads:
            with folder.reader(name) as file:
                if record_of(file) != record:
                    return f"{path} does not match its checksum"
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read: {error}"
    return None
