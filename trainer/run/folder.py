"""A folder of files, local or behind an fsspec URL, whose small files appear whole or not at all.

Leaves what the files mean to others. Imports no torch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from configs.errors import UserError


class Folder:
    """A local path (NFS is one) or an fsspec URL such as `s3://bucket/runs`.

    Local writes are synced to the disk. On object stores an upload appears when it is whole, so nothing is renamed.

    Raises:
        UserError: an unknown protocol, or one whose package is not installed.
    """

    def __init__(self, location: str | Path) -> None:
        self.fs: Any
        self.path: str
        self.is_local = "://" not in str(location)
        if self.is_local:
            self.fs, self.path = LocalFileSystem(), os.path.abspath(location)
            return
        try:
            self.fs, self.path = url_to_fs(str(location))
        except (ValueError, ImportError) as error:
            raise UserError(
                f"{location}: {error}\nuse a local path, or install the fsspec package of that protocol on every node"
            ) from error
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def __str__(self) -> str:
        return self.path if self.is_local else self.fs.unstrip_protocol(self.path)

    def child(self, name: str) -> "Folder":
        return Folder(f"{self}/{name}")

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}"

    def make(self) -> None:
        self.fs.makedirs(self.path, exist_ok=True)

    def names(self) -> list[str]:
        """Sorted names of what lies in the folder; none if there is no folder."""
        self.fs.invalidate_cache()
        try:
            return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in self.fs.ls(self.path, detail=False))
        except FileNotFoundError:
            return []

    def exists(self, name: str) -> bool:
        return self.fs.exists(self._at(name))

    def size(self, name: str) -> int:
        """Bytes of a file. Raises FileNotFoundError."""
        self.fs.invalidate_cache()
        return self.fs.size(self._at(name))

    @contextmanager
    def reader(self, name: str) -> Iterator[IO[bytes]]:
        with self.fs.open(self._at(name), "rb") as file:
            yield file

    @contextmanager
    def writer(self, name: str) -> Iterator[IO[bytes]]:
        """A new file, on the disk when the block ends."""
        self.make()
        if not self.is_local:
            with self.fs.open(self._at(name), "wb") as file:
                yield file
            return
        with open(self._at(name), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def read_bytes(self, name: str) -> bytes:
        return self.fs.cat_file(self._at(name))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Replaces a file at once: a reader, or a crash, sees the old content or the new one."""
        if not self.is_local:
            self.make()
            self.fs.pipe_file(self._at(name), content)
            return
        temporary = f".{name}.{os.getpid()}.tmp"
        try:
            with self.writer(temporary) as file:
                file.write(content)
            os.replace(self._at(temporary), self._at(name))
        except OSError:  # such as no space
            with suppress(FileNotFoundError):
                os.unlink(self._at(temporary))
            raise
        self.sync()

    def create(self, name: str, content: bytes) -> bool:
        """Writes a small file unless there is one of that name; of several callers, on any host, one gets True.

        On an object store that cannot say so at once, two callers within the same second may both get True.
        """
        self.make()
        if not self.is_local:
            return self._create_remote(name, content)
        try:
            descriptor = os.open(self._at(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        self.sync()
        return True

    def _create_remote(self, name: str, content: bytes) -> bool:
        if self.exists(name):
            return False
        try:
            self.fs.pipe_file(self._at(name), content, mode="create")
        except FileExistsError:
            return False
        return True

    def sync(self) -> None:
        """Puts the names of new files, and the folder's own, on the disk too."""
        if not self.is_local:
            return
        for path in (self.path, os.path.dirname(self.path)):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rename(self, name: str, to: str) -> None:
        self.fs.mv(self._at(name), self._at(to))

    def remove(self, name: str) -> None:
        """Removes a file; none there is no error."""
        if self.exists(name):
            self.fs.rm_file(self._at(name))

    def remove_all(self) -> None:
        """Removes the folder with all that is in it; none there is no error."""
        self.fs.invalidate_cache()
        if self.fs.exists(self.path):
            self.fs.rm(self.path, recursive=True)
