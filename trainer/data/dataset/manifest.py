"""The list of a data set's files as a run found them: files that arrive or change later are not its data.

Holds names, sizes, footers' checksums, row groups and schemas, and nothing of the rows. Finding the files and reading
their footers is in `trainer.data.dataset.scan`; which row is trained when in `trainer.data.reading.order`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from trainer.data.dataset.partitions import folder_of
from trainer.data.dataset.schema_text import schema_from_text, schema_to_text

FORMAT = 1


@dataclass(frozen=True)
class DataFile:
    """A Parquet file.

    Attributes:
        path: below the root of the part, with slashes.
        size: in bytes.
        footer: checksum of the footer (XXH64, hexadecimal): another file under the same name has another.
        rows: rows of each row group.
        bytes: decoded size of all row groups together, as the footer says.
        schema: place in `Manifest.schemas`.
    """

    path: str
    size: int
    footer: str
    rows: tuple[int, ...]
    bytes: int
    schema: int

    @property
    def folder(self) -> str:
        """Folder of the file below the root of the part: its partition."""
        return folder_of(self.path)


class RowGroup(NamedTuple):
    """A row group: its file, its place in the file, its rows."""

    file: DataFile
    place: int
    rows: int


@dataclass(frozen=True)
class Manifest:
    """The files of one part of a data set, ordered by folder, then by name.

    Attributes:
        root: folder or URL that the files' paths start from; no part of the fingerprint, so that data may move.
        files: in order.
        schemas: the distinct Arrow schemas of the files.
    """

    root: str
    files: tuple[DataFile, ...]
    schemas: tuple[pa.Schema, ...]

    @cached_property
    def row_groups(self) -> tuple[RowGroup, ...]:
        """All row groups, in order."""
        return tuple(RowGroup(file, place, rows) for file in self.files for place, rows in enumerate(file.rows))

    @cached_property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(sum(file.rows) for file in self.files)

    @cached_property
    def partitions(self) -> tuple[str, ...]:
        """Folders with files, in order."""
        return tuple(folder for folder, _ in groupby(self.files, key=lambda file: file.folder))

    def segments(self, by_partition: bool) -> tuple[np.ndarray, ...]:
        """Rows of each row group: one array, or one a partition."""
        if not by_partition:
            return (np.array([group.rows for group in self.row_groups], np.int64),)
        parts = groupby(self.files, key=lambda file: file.folder)
        return tuple(np.array([rows for file in files for rows in file.rows], np.int64) for _, files in parts)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything but the root, hexadecimal: equal for equal data."""
        content = self.to_json()
        del content["root"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def starts_with(self, earlier: Manifest) -> bool:
        """Whether this manifest is `earlier` with whole partitions after it."""
        count = len(earlier.files)
        is_new = (file.folder not in earlier.partitions for file in self.files[count:])
        return self.files[:count] == earlier.files and all(is_new)

    def to_json(self) -> dict:
        """As JSON data: see `from_json`."""
        schemas = [schema_to_text(schema) for schema in self.schemas]
        files = [asdict(file) for file in self.files]
        return {"format": FORMAT, "root": self.root, "schemas": schemas, "files": files}

    @staticmethod
    def from_json(content: dict) -> Manifest:
        """The manifest that `to_json` wrote."""
        assert content["format"] == FORMAT, f"a manifest of format {content['format']}, not {FORMAT}"
        schemas = tuple(map(schema_from_text, content["schemas"]))
        files = tuple(DataFile(**{**file, "rows": tuple(file["rows"])}) for file in content["files"])
        return Manifest(content["root"], files, schemas)
