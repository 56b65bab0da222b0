"""Finds the files of a data set and reads their footers into a manifest, many at a time.

Which files those are is defined in `trainer.data.dataset.listing`. One process does it, before workers are launched:
mistakes in the data come up before a cluster is taken, and 100,000 row groups take seconds in threads, see
benchmarks/manifest.py. The run directory keeps the manifest, so that a restart or a resume reads no footer again; a
footer that changes later is noticed when its rows are read.

What the files must hold for a given config is checked in `trainer.data.columns.checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.fs as fs

from configs.errors import UserError
from trainer.data.dataset.faults import unreadable, until_answered
from trainer.data.dataset.footers import Footer, read_footer
from trainer.data.dataset.listing import list_files, skipped_line
from trainer.data.dataset.manifest import DataFile, Manifest
from trainer.data.dataset.partitions import folder_of
from trainer.data.dataset.path_columns import path_types, with_path_fields
from trainer.data.dataset.source import Source, file_url, open_source
from trainer.data.dataset.threads import in_threads
from trainer.data.dataset.walk import Found, Skipped

THREADS = 24  # footers read at once: most of the time is waiting; pyarrow keeps 25 connections to S3

Look = Callable[[str, Footer], None]
Say = Callable[[str], None]


def build_manifest(
    root: str,
    part: str = "",
    known: Manifest | None = None,
    timeout_s: float = 120,
    look: Look | None = None,
    say: Say | None = None,
) -> Manifest:
    """The manifest of the data set in `root`/`part`.

    Args:
        root: a local folder, or a URL of pyarrow.fs or fsspec.
        part: a folder below it.
        known: an earlier manifest of the same part: files of the same name and size are taken from it, unread.
        timeout_s: for which a storage that does not answer is asked again.
        look: called with the name and the footer of every file that is read; may raise.
        say: given a line about what was skipped.

    Raises:
        UserError: the folder cannot be read or has no Parquet file, a file is damaged, or there is no row.
        StorageUnavailable: the storage does not answer.
    """
    source = open_source(root, part)
    listing = list_files(source, timeout_s, [file.path for file in known.files] if known else ())
    manifest, encrypted = read_footers(source, listing.files, known, timeout_s, look)
    say_skipped(source.root, [*listing.skipped, *encrypted], say)
    if not manifest.rows:
        raise UserError(
            f"{source.root}: {len(manifest.files)} Parquet files without a row\nCheck data.root and its folders."
        )
    return manifest


def say_skipped(root: str, skipped: Iterable[Skipped], say: Say | None) -> None:
    """Says in one line what was skipped below `root`, if anything was, and if there is someone to tell."""
    line = skipped_line(root, skipped)
    if say is not None and line is not None:
        say(line)


def read_footers(
    source: Source, found: Sequence[Found], known: Manifest | None, timeout_s: float, look: Look | None
) -> tuple[Manifest, list[Skipped]]:
    """The manifest of the files `found`, in their order, and the columns that are encrypted.

    Files of `known` are not read again, nor looked at.
    """
    earlier = {(file.path, file.size): file for file in known.files} if known else {}
    schemas: dict[pa.Schema, int] = {schema: i for i, schema in enumerate(known.schemas)} if known else {}
    unread = [file.path for file in found if file not in earlier]
    scanned = in_threads(partial(_scan, source, timeout_s, look), unread, THREADS, 2 * timeout_s)
    types, new = path_types(dict.fromkeys(folder_of(file.path) for file in found)), iter(scanned)
    files = [earlier[file] if file in earlier else _placed(next(new), schemas, types) for file in found]
    encrypted = [(name, entry.file.path) for entry in scanned for name in entry.encrypted]
    skipped = [Skipped(f"{name} in {path}", "encrypted column") for name, path in encrypted]
    return Manifest(source.root, tuple(files), tuple(schemas)), skipped


def exists(root: str, part: str) -> bool:
    """Whether there is a folder `part` below `root`."""
    source = open_source(root, part)
    try:
        return source.filesystem.get_file_info(source.folder).type == fs.FileType.Directory
    except OSError as error:
        raise unreadable(source.root, error, "Check data.root and its permissions.") from error


class _Scanned(NamedTuple):
    """A file, the columns of it that can be read, and the names of those that are encrypted."""

    file: DataFile
    schema: pa.Schema
    encrypted: tuple[str, ...]


def _scan(source: Source, timeout_s: float, look: Look | None, path: str) -> _Scanned:
    footer = until_answered(partial(footer_of, source, path), timeout_s)
    metadata = footer.metadata
    if look is not None:
        look(file_url(source.root, path), footer)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    rows = tuple(group.num_rows for group in groups)
    size = sum(group.total_byte_size for group in groups)
    encrypted = footer.encrypted_names
    schema = pa.schema([field for field in footer.schema if field.name not in encrypted])
    return _Scanned(DataFile(path, footer.size, footer.checksum, rows, size, -1), schema, encrypted)


def footer_of(source: Source, path: str) -> Footer:
    """The footer of a file below the source's folder.

    Raises:
        DataError: the file is no Parquet file, or not readable.
        StorageUnavailable: its storage does not answer.
    """
    where = file_url(source.root, path)
    try:
        with source.open(path) as file:
            return read_footer(file, where)
    except OSError as error:
        raise unreadable(where, error, "Check that it is there and readable.") from error


def _placed(entry: _Scanned, schemas: dict[pa.Schema, int], types: Mapping[str, pa.DataType]) -> DataFile:
    """The file with the place of its schema, to which its path adds columns."""
    schema = with_path_fields(entry.schema, entry.file.folder, types)
    return replace(entry.file, schema=schemas.setdefault(schema, len(schemas)))


def describe(files: Sequence[DataFile]) -> str:
    """Number of files and rows, for a log line."""
    return f"{len(files):,} file{'' if len(files) == 1 else 's'}, {sum(sum(file.rows) for file in files):,} rows"
