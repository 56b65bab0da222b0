"""Reads the footer of a Parquet file: its size, row groups, columns and their statistics.

Opening files is left to `trainer.data.dataset.source`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from trainer.data.dataset.faults import DataError, first_line

MAGIC, ENCRYPTED_MAGIC = b"PAR1", b"PARE"  # the second of files whose footer is encrypted
_TAIL = 64 * 1024  # bytes read at first from a file's end: most footers fit
_SIGNATURE = 28  # bytes of nonce and tag, behind the footer of a file with encrypted columns


@dataclass(frozen=True)
class Footer:
    """What a file's end says.

    Attributes:
        size: of the file, in bytes.
        checksum: of the footer (XXH64, hexadecimal).
        parsed: the footer as a file without rows.
        encrypted: places of the leaf columns that need a key.
    """

    size: int
    checksum: str
    parsed: pq.ParquetFile
    encrypted: frozenset[int]

    @property
    def metadata(self) -> pq.FileMetaData:
        return self.parsed.metadata

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema. `metadata.schema` would tie the metadata to itself until a garbage collection."""
        return self.parsed.schema_arrow

    @cached_property
    def columns(self) -> dict[str, int]:
        """The place of every leaf column that can be read, by its path; none in a file without row groups."""
        if not self.metadata.num_row_groups:
            return {}
        chunks = self.chunks(0)
        return {chunk.path_in_schema: place for place, chunk in chunks.items()}

    @property
    def encrypted_names(self) -> tuple[str, ...]:
        """The columns, lists and structs as a whole, that cannot be read without a key."""
        if not self.encrypted:
            return ()
        paths = [self.metadata.schema.column(place).path for place in sorted(self.encrypted)]
        return tuple(
            name for name in self.schema.names if any(path == name or path.startswith(f"{name}.") for path in paths)
        )

    def chunks(self, row_group: int) -> dict[int, pq.ColumnChunkMetaData]:
        """The leaf columns of a row group by their places. To ask for an encrypted one would end the process."""
        group = self.metadata.row_group(row_group)
        return {place: group.column(place) for place in range(group.num_columns) if place not in self.encrypted}


def read_footer(file: pa.NativeFile, name: str, checksum: str | None = None) -> Footer:
    """Reads a file's footer with one request, two when it is long.

    Raises:
        DataError: the file is no whole Parquet file, or its footer has another checksum than `checksum`.
    """
    size = file.size()
    if size < 12:
        raise DataError(f"{name} has {size} bytes: it is empty or cut off, no Parquet file\nDelete or restore it.")
    tail = file.read_at(min(size, _TAIL), max(0, size - _TAIL))
    if tail[-4:] == ENCRYPTED_MAGIC:
        raise DataError(f"{name} has an encrypted footer\nKeys are not supported: write the file without encryption.")
    if tail[-4:] != MAGIC:
        raise DataError(f"{name} does not end as a Parquet file: it is cut off or no Parquet\nDelete or restore it.")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > size:
        raise DataError(f"{name} has a damaged footer\nDelete or restore it.")
    if length > len(tail):
        tail = file.read_at(length, size - length)
    footer = tail[-length:]
    found = xxhash.xxh64_hexdigest(footer)
    if checksum not in (None, found):
        refuse_other(name, "it has another footer")
    try:
        parsed = pq.ParquetFile(pa.BufferReader(MAGIC + footer))
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{name} has a damaged footer: {first_line(error)}\nDelete or restore it.") from error
    except UnicodeDecodeError as error:
        shown = error.object.decode(errors="backslashreplace")
        raise DataError(
            f"{name} has a column whose name is not UTF-8: {shown!r}\nWrite it under another name."
        ) from None
    return Footer(size, found, parsed, _encrypted(parsed.metadata, len(footer) - 8))


def _encrypted(metadata: pq.FileMetaData, length: int) -> frozenset[int]:
    """Places of the leaf columns that need a key, of a footer of `length` bytes.

    pyarrow does not say, and ends the process (SIGABRT) when it is asked for the metadata of such a column. Reading one
    raises an exception, which names the reason; from a file without bytes, nothing else is read.
    """
    if length - metadata.serialized_size != _SIGNATURE or not metadata.num_row_groups:
        return frozenset()
    reader = pq.ParquetFile(pa.BufferReader(b""), metadata=metadata).reader
    places = range(metadata.num_columns)
    return frozenset(place for place in places if "decrypt" in _why_unreadable(reader, place))


def _why_unreadable(reader: Any, place: int) -> str:
    try:
        reader.read_row_group(0, column_indices=[place])
    except OSError as error:
        return str(error)
    return ""


def refuse_other(name: str, why: str) -> NoReturn:
    """Raises the DataError for a file that is not the one of the manifest."""
    raise DataError(
        f"{name} was replaced or changed since the run began: {why}\nRestore it, or start a new run on the new data."
    )
