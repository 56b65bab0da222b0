"""Reads one row group: checked against the manifest, decoded, transformed.

Which row groups are read when, and what a failure means for the run, is for `trainer.data.reading.prefetch`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema import DataConfig, TaskConfig
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.data.columns.block import Block
from trainer.data.columns.groups import group_ids
from trainer.data.columns.targets import Targets
from trainer.data.dataset.faults import DataError, unreadable
from trainer.data.dataset.footers import read_footer, refuse_other
from trainer.data.dataset.manifest import Manifest, RowGroup
from trainer.data.dataset.path_columns import add_path_columns
from trainer.data.dataset.source import file_url, open_source
from trainer.data.reading.dropped import DroppedIds

_FOOTERS_KEPT = 256


class Decoder:
    """Row groups of a manifest as blocks. Safe to call from several threads.

    Attributes:
        dropped: IDs that the transforms dropped.
    """

    def __init__(
        self,
        manifest: Manifest,
        data: DataConfig,
        features: FeatureTransforms,
        tasks: Mapping[str, TaskConfig],
        group_column: str | None,
    ) -> None:
        self.manifest = manifest
        self._source = open_source(manifest.root)
        self._features = features
        self.dropped = DroppedIds(features.dropping_names)
        self._targets = Targets(tasks, data.weight_column)
        self._verify = data.verify_checksums
        self._tasks = len(tasks)
        self._group_column = group_column
        of_groups = [group_column] if group_column else []
        self._columns = list(dict.fromkeys((*features.columns, *self._targets.columns, *of_groups)))
        self._footers: dict[str, tuple[object, pq.FileMetaData]] = {}
        self._lock = threading.Lock()

    @property
    def is_local(self) -> bool:
        """Whether files are on this machine's own file system."""
        return self._source.is_local

    def where(self, number: int) -> str:
        """A row group's name in messages."""
        row_group = self.manifest.row_groups[number]
        return f"{file_url(self.manifest.root, row_group.file.path)}, row group {row_group.place}"

    def column(self, place: int) -> str:
        """Of a place among the columns of the dense matrix and then the labels."""
        dense = self._features.dense_columns
        return dense[place] if place < len(dense) else self._targets.labels[place - len(dense)]

    def __call__(self, number: int) -> Block:
        """The rows of row group `number` of the manifest.

        Raises:
            DataError: the file is not what the manifest says, or cannot be read.
            StorageUnavailable: its storage does not answer.
            UserError: a value or a type cannot be trained.
        """
        row_group, where = self.manifest.row_groups[number], self.where(number)
        table = self._read(row_group, where)
        labels, weights = self._targets(table, where)
        groups = group_ids(table, self._group_column, where) if self._group_column else None
        columns = self._features(table, where)
        self.dropped.add(columns)
        return Block.of(columns, self._features.sparse_names, labels, weights, groups)

    def empty(self, number: int) -> Block:
        """As many rows of weight zero, in place of a row group that cannot be read."""
        rows = self.manifest.row_groups[number].rows
        grouped = self._group_column is not None
        return Block.empty(rows, len(self._features.sparse_names), self._features.dense_width, self._tasks, grouped)

    def _read(self, row_group: RowGroup, where: str) -> pa.Table:
        try:
            with self._source.open(row_group.file.path) as file:
                parquet = pq.ParquetFile(
                    file,
                    metadata=self._footer(row_group, file),
                    page_checksum_verification=self._verify,
                    pre_buffer=True,  # adjacent columns in one request
                )
                # One batch of all rows takes 2% less time than read_row_group.
                every, places = max(1, row_group.rows), [row_group.place]
                read = parquet.iter_batches(every, row_groups=places, columns=self._columns, use_threads=False)
                batches = list(read)
                table = pa.Table.from_batches(batches, None if batches else parquet.schema_arrow)
        except DataError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise unreadable(where, error, "Restore the file, or let data.on_error=quarantine skip it.") from error
        schema = self.manifest.schemas[row_group.file.schema]
        table = add_path_columns(table, row_group.file.folder, self._columns, schema, where)
        present = set(table.column_names)
        missing = [column for column in self._columns if column not in present]
        if missing:
            raise DataError(
                f"{where}: there is no column {missing[0]!r}\nThere are: {', '.join(parquet.schema_arrow.names)}."
            )
        if table.num_rows != row_group.rows:
            raise DataError(f"{where} has {table.num_rows} rows, not {row_group.rows}\nRestore the file.")
        return table

    def _footer(self, row_group: RowGroup, file: pa.NativeFile) -> pq.FileMetaData:
        """The file's metadata, after a look whether it is still the file of the manifest."""
        expected, stamp = row_group.file, self._source.stamp(row_group.file.path, file)
        with self._lock:
            known = self._footers.get(expected.path)
        if known and known[0] == stamp:
            return known[1]
        url = file_url(self.manifest.root, expected.path)
        if file.size() != expected.size:
            refuse_other(url, f"it has {file.size()} bytes, not {expected.size}")
        footer = read_footer(file, url, expected.footer)
        with self._lock:
            self._footers[expected.path] = stamp, footer.metadata
            if len(self._footers) > _FOOTERS_KEPT:
                del self._footers[next(iter(self._footers))]
        return footer.metadata
