"""What was asked and what was answered, as Parquet that `score` reads: offline and online scores can be compared.

    LOG/NAME/VERSION/requests-TIME-PID-N.parquet        the raw columns, served_TASK for each score, served_at

A thread writes. The loop hands it columns and goes on; while more than `_MOST_BYTES` wait, rows are dropped, and
counted. Files are finished after `request_log_file_s`; until then their names begin with a dot, so that nobody reads
a half one.
"""

import logging
import os
import random
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.serve_config import ServeConfig
from embeddings.features.arrow import is_list
from trainer.serving.columns import as_made, element_type

if TYPE_CHECKING:
    from trainer.serving.server.models import Version

log = logging.getLogger(__name__)
PREFIX, TIME = "served_", "served_at"
_MOST_BYTES = 64 << 20
_ROW_GROUP, _FILE_BYTES = 16_384, 64 << 20
_LOOK_S = 0.2
_OWN = re.compile(r"\.?requests-(\d+)-(\d+)-\d+\.parquet")


@dataclass(eq=False)
class _Batch:
    """Rows as they were scored, still to be written."""

    version: "Version"
    columns: Mapping[str, pa.Array]
    predictions: npt.NDArray[np.float32]
    at_ms: int
    size: int


@dataclass(eq=False)
class _File:
    """One that is being written. tables: of the next row group."""

    path: Path
    schema: pa.Schema
    writer: pq.ParquetWriter
    end: float
    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0


class RequestLog:
    """That of one process. UserError: its folder cannot be made."""

    def __init__(self, settings: ServeConfig, process: int) -> None:
        assert settings.request_log is not None
        self._settings, self._folder = settings, Path(settings.request_log)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"serve.request_log={self._folder} cannot be made: {error}\nGive another folder.") from None
        self._random = random.Random(process)
        self._batches: deque[_Batch] = deque()
        self._bytes_waiting, self._lock = 0, threading.Lock()
        self._files: dict[tuple[Path, pa.Schema], _File] = {}
        self._count, self._closing = 0, threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="request log", daemon=True)
        self._thread.start()

    def put(self, version: "Version", columns: Mapping[str, pa.Array], predictions: npt.NDArray[np.float32]) -> None:
        """Takes rows that were scored, or drops them. Never waits."""
        if self._settings.request_log_share < 1 and self._random.random() >= self._settings.request_log_share:
            return
        size = predictions.nbytes + sum(array.nbytes for array in columns.values())
        if self._bytes_waiting + size > _MOST_BYTES:
            version.counters.add("log_dropped", len(predictions))
            return
        with self._lock:
            self._bytes_waiting += size
        self._batches.append(_Batch(version, columns, predictions, time.time_ns() // 1_000_000, size))

    def close(self) -> None:
        """Writes what waits and finishes all files."""
        self._closing.set()
        self._thread.join(30)

    def _write_all(self) -> None:
        while True:
            is_last = self._closing.wait(_LOOK_S)
            for batches in _alike([self._batches.popleft() for _ in range(len(self._batches))]):
                self._write(batches)
            for key, file in list(self._files.items()):
                if is_last or time.monotonic() > file.end:
                    self._finish(key, file)
            if is_last:
                return

    def _write(self, batches: Sequence[_Batch]) -> None:
        version, count = batches[0].version, sum(len(batch.predictions) for batch in batches)
        try:
            table = _table(batches)
            file = self._file(version, table.schema)
            file.tables.append(table)
            file.rows += table.num_rows
            if file.rows >= _ROW_GROUP:
                _flush(file)
                if file.path.stat().st_size > _FILE_BYTES:
                    self._finish((file.path.parent, table.schema), file)
            version.counters.add("logged", count)
        except (OSError, pa.ArrowException, UserError) as error:
            version.counters.add("log_unwritten", count)
            log.error("%d rows were not logged: %s", count, error)
        finally:
            with self._lock:
                self._bytes_waiting -= sum(batch.size for batch in batches)

    def _file(self, version: "Version", schema: pa.Schema) -> _File:
        folder = self._folder / quote(version.name, safe=" ") / version.version
        key = folder, schema
        if key not in self._files:
            folder.mkdir(parents=True, exist_ok=True)
            self._count += 1
            path = folder / f".requests-{time.time_ns() // 1_000_000}-{os.getpid()}-{self._count}.parquet"
            writer = pq.ParquetWriter(path, schema, compression="zstd")
            self._files[key] = _File(path, schema, writer, time.monotonic() + self._settings.request_log_file_s)
        return self._files[key]

    def _finish(self, key: tuple[Path, pa.Schema], file: _File) -> None:
        del self._files[key]
        try:
            _flush(file)
            file.writer.close()
            file.path.rename(file.path.with_name(file.path.name[1:]))
            self._remove_oldest()
        except (OSError, pa.ArrowException) as error:
            log.error("%s was not finished: %s", file.path, error)

    def _remove_oldest(self) -> None:
        """Of the files that a log has left here: drafts of processes that are gone, and what exceeds the limit."""
        found = []
        for path in self._folder.rglob("*.parquet"):
            named = _OWN.fullmatch(path.name)
            if named is None:
                continue
            if not path.name.startswith("."):
                found.append((int(named[1]), path))
            elif not Path(f"/proc/{named[2]}").exists():
                path.unlink(missing_ok=True)
        total = 0
        for _, path in sorted(found, reverse=True):
            try:
                total += path.stat().st_size
            except FileNotFoundError:  # another process was faster
                continue
            if total > self._settings.request_log_mib << 20:
                path.unlink(missing_ok=True)


def _flush(file: _File) -> None:
    """Writes the tables that wait as one row group."""
    if file.tables:
        tables, file.tables, file.rows = file.tables, [], 0
        file.writer.write_table(pa.concat_tables(tables).combine_chunks())


def _alike(batches: Sequence[_Batch]) -> Iterable[Sequence[_Batch]]:
    """Those of one version with columns of the same types together: to convert a row costs as much as many."""
    found: dict[tuple, list[_Batch]] = defaultdict(list)
    for batch in batches:
        found[batch.version, tuple((name, array.type) for name, array in batch.columns.items())].append(batch)
    return found.values()


def _table(batches: Sequence[_Batch]) -> pa.Table:
    """Columns of few types, whatever those of the request: numbers of 64 bits where training had integers."""
    bundle = batches[0].version.bundle
    names = bundle.transforms.columns
    table = pa.table({name: pa.chunked_array([batch.columns[name] for batch in batches]) for name in names})
    table = bundle.as_trained(table.combine_chunks(), "request")
    for place, name in enumerate(table.column_names):
        kind = _kept_as(table.schema.field(name).type if bundle.schema is None else bundle.schema.field(name).type)
        table = table.set_column(place, name, table.column(name).cast(kind))
    predictions = np.concatenate([batch.predictions for batch in batches])
    for task, scores in zip(bundle.tasks, predictions.T, strict=True):
        table = table.append_column(PREFIX + task, pa.array(np.ascontiguousarray(scores)))
    at = np.repeat([batch.at_ms for batch in batches], [len(batch.predictions) for batch in batches])
    return table.append_column(TIME, pa.array(at, pa.timestamp("ms", "UTC")))


def _kept_as(kind: pa.DataType) -> pa.DataType:
    element = as_made(element_type(kind))
    return pa.large_list(element) if is_list(kind) else element
