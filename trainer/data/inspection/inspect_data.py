"""Reads what is in a data set: sizes and layout of its files, and the values of its columns, part by part.

Needs no config: columns are described as they are. Row groups are decoded one batch of rows after another, so that
memory stays bounded. The statistics of one column are in `trainer.data.inspection.column_profile`; advice and text in
`trainer.data.inspection.data_report`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from configs.errors import UserError
from trainer.data.columns.checks import kind
from trainer.data.dataset.faults import DataError, first_line
from trainer.data.dataset.footers import read_footer
from trainer.data.dataset.manifest import DataFile, Manifest, RowGroup
from trainer.data.dataset.path_columns import add_path_columns
from trainer.data.dataset.scan import build_manifest
from trainer.data.dataset.source import Source, file_url, open_source
from trainer.data.inspection.column_profile import ColumnProfile
from trainer.data.inspection.data_report import advice_of_part, schema_differences, text_of

PARTS = ("train", "validation", "test")
ROW_GROUPS = 64  # of a part that are read
_BATCH_ROWS = 65_536
_HEADER_BYTES = 32  # hold the first four fields of a page header


def inspect_data(path: str, row_groups: int = ROW_GROUPS) -> tuple[str, dict[str, Any]]:
    """Text of at most 100 columns about the data below `path`, and the same as JSON values.

    Args:
        path: a data set with the folders train, validation or test, or else any folder: one part of that name.
        row_groups: at most so many of each part are read, spread evenly over it.

    Raises:
        UserError: there is no Parquet file or no row below `path`, or a file is damaged.
    """
    source = open_source(path)
    info = source.filesystem.get_file_info(source.folder)
    if info.type == fs.FileType.File:
        raise UserError(f"{path} is a file\nGive the folder that it is in.")
    skipped: list[str] = []
    manifest = build_manifest(path, say=skipped.append)
    parts = {name: _part(source, manifest, files, row_groups) for name, files in _parts(source, manifest).items()}
    differences = schema_differences(manifest)
    values = {"kind": "data", "path": source.root, "skipped": skipped, "parts": parts, "advice": differences}
    return text_of(values), values


def _parts(source: Source, manifest: Manifest) -> dict[str, list[DataFile]]:
    """Files of each part. A folder of a part's name without files is a part too."""
    infos = source.filesystem.get_file_info([source.path(name) for name in PARTS])
    found = [name for name, info in zip(PARTS, infos, strict=True) if info.type == fs.FileType.Directory]
    if not found:
        return {source.folder.rpartition("/")[2]: list(manifest.files)}
    return {name: [file for file in manifest.files if file.path.startswith(f"{name}/")] for name in found}


def _part(source: Source, manifest: Manifest, files: Sequence[DataFile], limit: int) -> dict[str, Any]:
    groups = [RowGroup(file, place, rows) for file in files for place, rows in enumerate(file.rows) if rows]
    chosen = groups
    if len(groups) > limit:
        chosen = [groups[i] for i in np.linspace(0, len(groups) - 1, limit).round().astype(int)]
    columns = _columns(manifest, files)
    sizes, codecs, checksums = [], set(), []
    for file, its_groups in groupby(chosen, key=lambda group: group.file):
        for size, codec, has_checksum in _read_file(
            source, file, manifest.schemas[file.schema], list(its_groups), columns
        ):
            sizes.append(size)
            codecs |= codec
            checksums.append(has_checksum)
    part = {
        "files": len(files),
        "rows": sum(sum(file.rows) for file in files),
        "bytes": sum(file.size for file in files),
        "row_groups": {
            "count": len(groups),
            "read": len(chosen),
            "rows": _spread([group.rows for group in groups]),
            "decoded_bytes": _spread(sizes),
        },
        "codecs": sorted(codecs),
        "page_checksums": _in_a_word(checksums),
        "columns": {name: profile.to_json() for name, profile in columns.items()},
    }
    return {**part, "advice": advice_of_part(part)}


def _columns(manifest: Manifest, files: Sequence[DataFile]) -> dict[str, ColumnProfile]:
    """Empty profiles of all columns that a file has."""
    columns: dict[str, ColumnProfile] = {}
    for place in dict.fromkeys(file.schema for file in files):
        for field in manifest.schemas[place]:
            shown = str(kind(field.type)).replace("list<item: ", "list<")
            columns.setdefault(field.name, ColumnProfile()).types[shown] = None
    return columns


def _read_file(
    source: Source,
    expected: DataFile,
    schema: pa.Schema,
    groups: Sequence[RowGroup],
    columns: dict[str, ColumnProfile],
) -> Iterator[tuple[int, set[str], bool | None]]:
    """Adds row groups of a file to the columns; yields each one's decoded bytes, codecs and whether it has checksums.

    Raises:
        DataError: the file cannot be read, or changed since it was listed.
    """
    where = file_url(source.root, expected.path)
    try:
        with source.open(expected.path) as file:
            footer = read_footer(file, where)
            if footer.checksum != expected.footer:
                raise DataError(f"{where} was replaced while it was read\nTry again when nothing writes to it.")
            parquet = pq.ParquetFile(file, metadata=footer.metadata, page_checksum_verification=True)
            encrypted = footer.encrypted_names
            readable = [name for name in footer.schema.names if name not in encrypted] if encrypted else None
            for group in groups:
                where = f"{file_url(source.root, expected.path)}, row group {group.place}"
                chunks = list(footer.chunks(group.place).values())
                batches = parquet.iter_batches(_BATCH_ROWS, row_groups=[group.place], columns=readable)
                size = _add(batches, expected.folder, schema, columns)
                yield size, {chunk.compression for chunk in chunks}, _has_page_checksum(file, chunks)
    except DataError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{where} cannot be read: {first_line(error)}\nDelete or restore the file.") from error


def _add(batches: Iterator[pa.RecordBatch], folder: str, schema: pa.Schema, columns: dict[str, ColumnProfile]) -> int:
    """Adds the values of a row group to the columns, those of its path among them; returns its decoded bytes."""
    size = 0
    for batch in batches:
        size += batch.nbytes
        missing = [name for name in columns if name not in batch.schema.names]
        table = add_path_columns(pa.Table.from_batches([batch]), folder, missing, schema, folder)
        for name, column in zip(table.column_names, table.columns, strict=True):
            columns[name].add(column)
    return size


def _has_page_checksum(file: pa.NativeFile, chunks: Sequence[pq.ColumnChunkMetaData]) -> bool | None:
    """Whether the first page of a row group has a checksum, which only the page's own header says; None if unknown.

    The header is a Thrift struct in the compact protocol: fields 1 to 3 are integers (type, size, compressed size),
    the optional field 4 is the CRC. https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
    """
    if not chunks:
        return None
    offsets = (chunks[0].dictionary_page_offset, chunks[0].data_page_offset)
    header = file.read_at(_HEADER_BYTES, min((offset for offset in offsets if offset), default=0))
    place = 0
    for _ in range(3):
        if header[place : place + 1] != b"\x15":  # the next field, an integer
            return None
        place += 1
        while header[place : place + 1] >= b"\x80":  # a variable-length number goes on
            place += 1
        place += 1
    return header[place : place + 1] == b"\x15"


def _in_a_word(checksums: Sequence[bool | None]) -> str:
    """all, some or none of the row groups that were read; unknown when it is not known of each."""
    if not checksums or None in checksums:
        return "unknown"
    return "all" if all(checksums) else "some" if any(checksums) else "none"


def _spread(numbers: Sequence[int]) -> dict[str, int] | None:
    """Smallest, median and largest."""
    if not numbers:
        return None
    return {"min": min(numbers), "median": int(np.median(numbers)), "max": max(numbers)}
