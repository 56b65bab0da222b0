"""Scores Parquet files with a bundle: the rows as they are, and a column of predictions for every task beside them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from trainer.serving.bundle import Bundle

PREFIX = "predicted_"


def score_files(bundle: str, files: Sequence[str], out: str) -> list[Path]:
    """Scores `files` row group by row group, in order, and returns what was written.

    Args:
        bundle: folder that `export` wrote.
        files: Parquet files, or folders of them.
        out: a file for one input file; else a folder, in which every input gets a file of its own name (below a
            folder, its path there).

    Raises:
        UserError: no such file, a column is missing or is taken, or two inputs would get the same name.
    """
    loaded = Bundle(bundle)
    inputs = parquet_files(files)
    to_file = len(inputs) == 1 and out.endswith(".parquet")
    targets = {Path(out) if to_file else Path(out) / name: source for name, source in inputs.items()}
    for target, source in targets.items():
        if target.exists() and target.samefile(source):
            raise UserError(f"{target} would replace its own input\nGive another OUT.")
    for target, source in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        _score_file(loaded, source, target)
    return list(targets)


def parquet_files(paths: Sequence[str]) -> dict[Path, Path]:
    """Relative name -> file, of files and of all `*.parquet` below folders."""
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path} does not exist\nGive Parquet files or folders of them.")
        files = {file.relative_to(path): file for file in sorted(path.rglob("*.parquet"))} if path.is_dir() else {}
        if path.is_dir() and not files:
            raise UserError(f"{path} has no *.parquet\nGive Parquet files or folders of them.")
        for name, file in (files or {Path(path.name): path}).items():
            if name in found:
                raise UserError(f"{found[name]} and {file} have the same name\nScore them into different folders.")
            found[name] = file
    return found


def with_predictions(rows: pa.Table, predictions: npt.NDArray[np.float32], tasks: Sequence[str]) -> pa.Table:
    """`rows` with a float column `predicted_<task>` for every column of `predictions` [R, T]."""
    for task, column in zip(tasks, predictions.T, strict=True):
        rows = rows.append_column(PREFIX + task, pa.array(np.ascontiguousarray(column)))
    return rows


def _score_file(bundle: Bundle, source: Path, target: Path) -> None:
    """Written beside `target` and renamed: there is a whole file or none."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetFile(source) as file:
            schema = _schema(file.schema_arrow, bundle.tasks, source)
            with pq.ParquetWriter(draft, schema, write_page_checksum=True) as writer:
                for rows, where in _row_groups(file, source):
                    scored = with_predictions(rows, bundle.predict(rows, where), bundle.tasks)
                    writer.write_table(scored.cast(schema))
        os.replace(draft, target)
    except pa.ArrowInvalid as error:
        raise UserError(f"{source} cannot be read: {error}\nIs it a whole Parquet file?") from error
    finally:
        draft.unlink(missing_ok=True)


def _row_groups(file: pq.ParquetFile, source: Path) -> Iterator[tuple[pa.Table, str]]:
    for number in range(file.num_row_groups):
        yield file.read_row_group(number), f"{source}, row group {number}"


def _schema(schema: pa.Schema, tasks: Sequence[str], source: Path) -> pa.Schema:
    for name in (PREFIX + task for task in tasks):
        if name in schema.names:
            raise UserError(f"{source} has a column {name!r} already\nRemove it, or score the original file.")
        schema = schema.append(pa.field(name, pa.float32()))
    return schema
