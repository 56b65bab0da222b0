"""Opens a data set's files: a local folder, or a URL that pyarrow or fsspec knows.

Footers are read in `trainer.data.dataset.footers`. Trying again what failed is left to those who read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.fs as fs

from configs.errors import UserError
from trainer.data.dataset.faults import first_line, unreadable

_S3_ATTEMPTS = 3  # of a request that is answered with 5xx or cut off; the reader then reads the row group again
_CONNECT_TIMEOUT_S, _REQUEST_TIMEOUT_S = 10.0, 20.0  # the second: without a byte


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
            return pa.OSFile(os.fsencode(self.path(name)))  # pyright: ignore[reportArgumentType]
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


def open_source(root: str, part: str = "") -> Source:
    """The file system and folder of `root`/`part`.

    Raises:
        UserError: no file system is known for the URL, or it cannot be opened.
        StorageUnavailable: it does not answer.
    """
    if "://" not in root:
        where = os.path.abspath(os.path.join(root, part))  # workers run in other folders
        return Source(where, fs.LocalFileSystem(), where)
    place, mark, options = root.partition("?")
    where = (f"{place.rstrip('/')}/{part}" if part else place) + mark + options
    try:
        filesystem, folder = _s3(where) if where.startswith("s3://") else fs.FileSystem.from_uri(where)
    except (pa.ArrowInvalid, NotImplementedError):
        filesystem, folder = _fsspec(where)
    except OSError as error:
        raise unreadable(where, error, "Check the URL and the credentials.") from error
    return Source(where, filesystem, folder.rstrip("/"))


def _s3(where: str) -> tuple[fs.FileSystem, str]:
    """S3 with time-outs and retries of its own. Options in the URL: region, endpoint_override, scheme, anonymous.

    Raises:
        OSError: the region cannot be found out.
        UserError: an option is not known, or the URL holds a key.
    """
    url = urlsplit(where)
    options: dict[str, Any] = dict(parse_qsl(url.query))
    if "@" in url.netloc:  # the URL is written to the run directory and to logs
        raise UserError(
            f"s3://...@{url.netloc.rpartition('@')[2]}: the URL holds a key\n"
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on all nodes, or use ~/.aws/credentials or a role."
        )
    unknown = sorted(options.keys() - {"region", "endpoint_override", "scheme", "anonymous"})
    if unknown:
        raise UserError(
            f"{where}: S3 has no option {unknown[0]!r}\nIt has region, endpoint_override, scheme, anonymous."
        )
    options["anonymous"] = options.get("anonymous", "false").lower() == "true"
    if "region" not in options and "endpoint_override" not in options:
        options["region"] = fs.resolve_s3_region(url.netloc)
    retries = fs.AwsStandardS3RetryStrategy(max_attempts=_S3_ATTEMPTS)
    filesystem = fs.S3FileSystem(
        **options, connect_timeout=_CONNECT_TIMEOUT_S, request_timeout=_REQUEST_TIMEOUT_S, retry_strategy=retries
    )
    return filesystem, url.netloc + url.path


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


def file_url(root: str, path: str) -> str:
    """A file's name in messages: its root, without the options of a URL, and its path."""
    return f"{root.partition('?')[0] if '://' in root else root}/{path}"
