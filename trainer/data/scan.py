"""Finds the files of a data set and reads their footers into a manifest, many at a time.

What the files must hold for a given config is checked in `trainer.data.checks`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import pyarrow as pa
import pyarrow.fs as fs

from configs.errors import UserError
from trainer.data.manifest import DataFile, Manifest, ordered
from trainer.data.source import DataError, Footer, Source, arrow_schema, file_url, first_line, open_source, read_footer
from trainer.data.threads import in_threads

THREADS = 16  # footers read at once: most of the time is waiting
_SECOND_TRY_AFTER_S = 1.0
SUFFIXES = (".parquet", ".parq", ".pq")


def build_manifest(root: str, part: str = "", known: Manifest | None = None, timeout_s: float = 120) -> Manifest:
    """The manifest of the Parquet files below `root`/`part`, hidden ones (. and _) left out.

    Args:
        root: a local folder, or a URL of pyarrow.fs or fsspec.
        part: a folder below it.
        known: an earlier manifest of the same part: files of the same name and size are taken from it, unread.
        timeout_s: of reading one footer.

    Raises:
        UserError: the folder cannot be read or has no Parquet file, a file is damaged, or there is no row.
    """
    source = open_source(root, part)
    manifest = read_footers(source, list_files(source), known, timeout_s)
    if not manifest.rows:
        raise UserError(
            f"{source.root}: {len(manifest.files)} Parquet files without a row\nCheck data.root and its folders."
        )
    return manifest


def read_footers(
    source: Source, found: Sequence[tuple[str, int]], known: Manifest | None, timeout_s: float = 120
) -> Manifest:
    """The manifest of the files `found`, paths and sizes; those of `known` are not read again."""
    earlier = {(file.path, file.size): file for file in known.files} if known else {}
    schemas: dict[pa.Schema, int] = {schema: i for i, schema in enumerate(known.schemas)} if known else {}
    unread = [(path, size) for path, size in found if (path, size) not in earlier]
    files = [earlier[entry] for entry in found if entry in earlier]
    for entry, schema in in_threads(partial(_scan, source), [path for path, _ in unread], THREADS, timeout_s):
        files.append(_with_schema(entry, schema, schemas))
    return Manifest(source.root, tuple(ordered(files)), tuple(schemas))


def exists(root: str, part: str) -> bool:
    """Whether there is a folder `part` below `root`."""
    source = open_source(root, part)
    return source.filesystem.get_file_info(source.folder).type == fs.FileType.Directory


def list_files(source: Source) -> list[tuple[str, int]]:
    """Paths below the source's folder and sizes of its Parquet files, sorted.

    Raises:
        UserError: the folder cannot be read or has no Parquet file.
    """
    try:
        infos = source.filesystem.get_file_info(fs.FileSelector(source.folder, recursive=True))
    except OSError as error:
        raise UserError(
            f"{source.root} cannot be read: {first_line(error)}\nCheck data.root and its permissions."
        ) from error
    found = [(_below(info.path, source.folder), info.size) for info in infos if info.type == fs.FileType.File]
    files = sorted((path, size) for path, size in found if path.endswith(SUFFIXES) and not is_hidden(path))
    if not files:
        raise UserError(f"{source.root} has no Parquet file\nData files end in {', '.join(SUFFIXES)}.")
    return files


def _below(path: str, folder: str) -> str:
    path, folder = path.replace("\\", "/"), folder.replace("\\", "/")
    return path.removeprefix(folder).lstrip("/")


def is_hidden(path: str) -> bool:
    """Whether a file or a folder above it is not meant as data."""
    return any(name.startswith((".", "_")) for name in path.split("/"))


def _scan(source: Source, path: str) -> tuple[DataFile, pa.Schema]:
    where = file_url(source.root, path)
    try:
        footer = _footer(source, path, where)
    except OSError:
        time.sleep(_SECOND_TRY_AFTER_S)
        try:
            footer = _footer(source, path, where)
        except OSError as error:
            raise DataError(
                f"{where} cannot be read: {first_line(error)}\nCheck that it is there and readable."
            ) from error
    groups = [footer.metadata.row_group(i) for i in range(footer.metadata.num_row_groups)]
    rows = tuple(group.num_rows for group in groups)
    size = sum(group.total_byte_size for group in groups)
    schema = arrow_schema(footer.metadata).remove_metadata()
    return DataFile(path, footer.size, footer.checksum, rows, size, -1), schema


def _footer(source: Source, path: str, where: str) -> Footer:
    with source.open(path) as file:
        return read_footer(file, where)


def _with_schema(file: DataFile, schema: pa.Schema, schemas: dict[pa.Schema, int]) -> DataFile:
    place = schemas.setdefault(schema, len(schemas))
    return DataFile(file.path, file.size, file.footer, file.rows, file.bytes, place)


def describe(files: Sequence[DataFile]) -> str:
    """Number of files and rows, for a log line."""
    return f"{len(files):,} files, {sum(sum(file.rows) for file in files):,} rows"
