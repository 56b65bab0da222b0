"""All that lies below a folder: every file once, whatever links to it.

Links are followed, as data sets are put together with them, but what was met before is skipped: a link to a folder
above, or a second way to the same files. A hard link is a file like any other. What of all that is data is for
`trainer.data.dataset.listing`.
"""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from contextlib import suppress
from typing import NamedTuple

import pyarrow.fs as fs

from trainer.data.dataset.faults import unreadable
from trainer.data.dataset.source import Source

_HIDDEN = re.compile(r"\.|_(?!.*=)|.*\._COPYING_$")  # as Spark and Hive have it: _day=1 is a partition
_Identity = tuple[int, int]


class Found(NamedTuple):
    """A file below the root, with slashes, and its size in bytes."""

    path: str
    size: int


class Skipped(NamedTuple):
    """What was skipped: its path below the root, and why, in a word or a few."""

    path: str
    why: str


class Walk(NamedTuple):
    """The files that are not hidden, and what was skipped. Hidden folders are not opened, if that can be avoided."""

    files: list[Found]
    skipped: list[Skipped]
    names: list[str]  # of all that was met, hidden or not


def is_hidden(name: str) -> bool:
    """Whether the name of a file or folder says that it is not meant as data."""
    return _HIDDEN.match(name) is not None


def walk(source: Source) -> Walk:
    """Walks through the source's folder.

    Raises:
        DataError: it cannot be read.
        StorageUnavailable: its storage does not answer.
    """
    try:
        return _Folders(source.folder).walk() if source.is_local else _walk_store(source)
    except OSError as error:
        raise unreadable(source.root, error, "Check that it is there, and its permissions.") from error


def _walk_store(source: Source) -> Walk:
    """Of a file system that lists all below a folder at once."""
    files, hidden, names = [], {}, []
    for info in source.filesystem.get_file_info(fs.FileSelector(source.folder, recursive=True)):
        if info.type != fs.FileType.File:
            continue
        path = info.path.replace("\\", "/")[len(source.folder) + 1 :]  # a key may have empty names in it
        names.append(path)
        parts = path.split("/")
        place = next((place for place, name in enumerate(parts, start=1) if is_hidden(name)), None)
        if place is None:
            files.append(Found(path, info.size))
        else:
            hidden["/".join(parts[:place])] = None
    return Walk(files, [Skipped(path, "hidden") for path in hidden], names)


class _Folders:
    """A walk through folders of this machine, as the links in it are met."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._found = Walk([], [], [])
        self._links: deque[str] = deque()  # looked at when all that is no link was
        self._seen: dict[_Identity, str] = {}
        above = os.path.dirname(os.path.realpath(root))
        self._above = {_identity(os.stat(folder)) for folder in _upwards(above)}

    def walk(self) -> Walk:
        self._folder("")
        while self._links:
            self._link(self._links.popleft())
        return self._found

    def _folder(self, top: str) -> None:
        """Meets all below a folder but links, which are noted."""
        waiting = [top]
        self._seen.setdefault(_identity(os.stat(self._at(top))), top)
        while waiting:
            folder = waiting.pop()
            try:
                entries = sorted(os.scandir(self._at(folder)), key=lambda entry: entry.name)
            except FileNotFoundError:
                if not folder:
                    raise
                continue  # deleted or renamed meanwhile, as what writes to a data set does
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if self._meet(path, entry):
                    waiting.append(path)

    def _meet(self, path: str, entry: os.DirEntry[str]) -> bool:
        """Sorts an entry in; whether it is a folder to open."""
        self._found.names.append(path)
        if is_hidden(entry.name):
            self._found.skipped.append(Skipped(path, "hidden"))
        elif entry.is_symlink():
            self._links.append(path)
        else:
            with suppress(FileNotFoundError):
                if entry.is_dir():
                    return self._is_new(path, entry.stat())
                self._file(path, entry.stat())
        return False

    def _link(self, path: str) -> None:
        try:
            status = os.stat(self._at(path))
        except FileNotFoundError:
            self._found.skipped.append(Skipped(path, "broken link"))
            return
        if not stat.S_ISDIR(status.st_mode):
            if self._is_new(path, status):
                self._file(path, status)
        elif _identity(status) in self._above:
            self._found.skipped.append(Skipped(path, "link to a folder above"))
        elif self._is_new(path, status):
            self._folder(path)

    def _file(self, path: str, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode):
            self._seen.setdefault(_identity(status), path)
            self._found.files.append(Found(path, status.st_size))
        else:
            self._found.skipped.append(Skipped(path, "not a file"))

    def _is_new(self, path: str, status: os.stat_result) -> bool:
        """Whether a folder, or what a link points to, was not met before."""
        first = self._seen.setdefault(_identity(status), path)
        if first != path:
            self._found.skipped.append(Skipped(f"{path} -> {first or '.'}", "linked twice"))
        return first == path

    def _at(self, path: str) -> str:
        return os.path.join(self._root, path) if path else self._root


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _upwards(folder: str) -> list[str]:
    folders = [folder]
    while (parent := os.path.dirname(folders[-1])) != folders[-1]:
        folders.append(parent)
    return folders
