"""Opens a data set's files: a local folder, or a URL that pyarrow or fsspec knows.

Every file is read through a footer that was checked against the manifest. Retries and time-outs are left to
`trainer.data.decode`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
import xxhash

from configs.errors import UserError

MAGIC = b"PAR1"
_TAIL = 64 * 1024  # bytes read at first from a file's end: most footers fit


class DataError(UserError):
    """A file that cannot be read as the manifest says. The first line names the file."""


@dataclass(frozen=True)
class Source:
    """A folder of a file system.

    Attributes:
        root: URL, or absolute path.
        filesystem: that opens `folder`.
        folder: of the file system, without a slash at its end.
    """

    root: str
    filesystem: fs.FileSystem
    folder: str

    def path(self, name: str) -> str:
        """A file's path in the file system."""
        return f"{self.folder}/{name}" if name else self.folder

    def open(self, name: str) -> pa.NativeFile:
        """Opens a file for reading at any place."""
        if isinstance(self.filesystem, fs.LocalFileSystem):
            return pa.OSFile(self.path(name))
        return self.filesystem.open_input_file(self.path(name))

    def stamp(self, name: str, file: pa.NativeFile) -> object:
        """What changes when a file is replaced, as far as it can be had without another request."""
        if not self.is_local:
            return file.size(), _object_metadata(file)
        status = os.stat(self.path(name))
        return status.st_size, status.st_mtime_ns, status.st_ino

    @property
    def is_local(self) -> bool:
        """Whether files are on this machine's own file system."""
        return isinstance(self.filesystem, fs.LocalFileSystem)


@dataclass(frozen=True)
class Footer:
    """A file's size, the checksum of its footer and its parsed metadata."""

    size: int
    checksum: str
    metadata: pq.FileMetaData


def open_source(root: str, part: str = "") -> Source:
    """The file system and folder of `root`/`part`.

    Raises:
        UserError: no file system is known for the URL.
    """
    where = f"{root.rstrip('/')}/{part}" if part else root
    if "://" not in where:
        where = os.path.abspath(where)  # workers run in other folders
        return Source(where, fs.LocalFileSystem(), where)
    try:
        filesystem, folder = fs.FileSystem.from_uri(where)
    except (pa.ArrowInvalid, NotImplementedError):
        filesystem, folder = _fsspec(where)
    except OSError as error:
        raise UserError(f"{where} cannot be opened: {first_line(error)}\nCheck the URL and the credentials.") from error
    return Source(where, filesystem, folder.rstrip("/"))


def first_line(error: BaseException) -> str:
    """What an exception says, without what follows in further lines."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _object_metadata(file: pa.NativeFile) -> object:
    """An object store's headers, such as the ETag, which came with the size."""
    try:
        return file.metadata()
    except (NotImplementedError, ValueError):
        return None


def _fsspec(where: str) -> tuple[fs.FileSystem, str]:
    import fsspec

    try:
        filesystem, folder = fsspec.core.url_to_fs(where)
    except (ValueError, ImportError) as error:
        raise UserError(
            f"{where} cannot be opened: {first_line(error)}\nInstall the fsspec package for this URL."
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), folder


def read_footer(file: pa.NativeFile, name: str) -> Footer:
    """Reads a file's footer with one request, two when it is long.

    Raises:
        DataError: the file is no whole Parquet file.
    """
    size = file.size()
    if size < 12:
        raise DataError(f"{name} has {size} bytes: it is empty or cut off, no Parquet file\nDelete or restore it.")
    tail = file.read_at(min(size, _TAIL), max(0, size - _TAIL))
    if tail[-4:] != MAGIC:
        raise DataError(f"{name} does not end as a Parquet file: it is cut off or no Parquet\nDelete or restore it.")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > size:
        raise DataError(f"{name} has a damaged footer\nDelete or restore it.")
    if length > len(tail):
        tail = file.read_at(length, size - length)
    footer = tail[-length:]
    try:
        metadata = pq.read_metadata(pa.BufferReader(MAGIC + footer))
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{name} has a damaged footer: {first_line(error)}\nDelete or restore it.") from error
    return Footer(size, xxhash.xxh64_hexdigest(footer), metadata)
