"""Scores Parquet files with a bundle: the rows as they are, and a column of predictions for every task beside them."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
import xxhash

from configs.errors import UserError
from configs.outputs import check_lasts, check_output
from trainer.data.dataset.faults import unreadable
from trainer.data.dataset.footers import read_footer
from trainer.data.dataset.listing import SUFFIXES, list_files, skipped_line
from trainer.data.dataset.partitions import folder_of
from trainer.data.dataset.path_columns import add_path_columns
from trainer.data.dataset.source import Source, file_url, open_source
from trainer.serving.bundle import Bundle

PREFIX = "predicted_"
_MARK = b"multigate.score"  # in the footer of what `score` wrote: JSON of bundle, input, tasks and a digest
_STORAGE_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Input:
    """A file to score: where it is, and its path below the folder that was given, or its name."""

    source: Source
    path: str
    name: str

    @property
    def where(self) -> str:
        """The file, in messages."""
        return file_url(self.source.root, self.path)


def score_files(
    bundle: str,
    files: Sequence[str],
    out: str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    verify: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Scores `files` row group by row group, in order, and returns what was written.

    Args:
        bundle: folder that `export` wrote.
        files: Parquet files, or folders of them: what belongs to one is as in training.
        out: a file for one input file; else a folder, in which every input gets a file of its own name (below a
            folder, its path there).
        overwrite: replace files that were scored before.
        resume: keep those that this very bundle scored from inputs of the same size, and score the rest.
        verify: compare the checksums of the bundle's files.
        say: given a line about what is skipped.

    Raises:
        UserError: no such file, a column is missing or is taken, two inputs would get the same name, or a file that
            `score` did not write is in the way.
    """
    check_lasts(out, "OUT, the last argument,")
    inputs = find_inputs(files, say)
    to_file = len(inputs) == 1 and out.lower().endswith(SUFFIXES)
    targets = {Path(out) if to_file else Path(out) / name: file for name, file in inputs.items()}
    _refuse_inside(out, files)
    loaded = Bundle(bundle, verify=verify)
    done = [target for target, file in targets.items() if resume and _is_done(target, file, loaded)]
    for target in done:
        del targets[target]
    if done:
        say(f"{len(done)} of {len(done) + len(targets)} files are scored already")
    for target in targets:
        check_output(target, "OUT, the last argument,", "file", is_own=is_scored, overwrite=overwrite or resume)
    for target, file in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        _score_file(loaded, file, target)
    return [*done, *targets]


def find_inputs(paths: Sequence[str], say: Callable[[str], None] = lambda line: None) -> dict[str, Input]:
    """Relative name -> file, of files and of the data sets in folders."""
    found: dict[str, Input] = {}
    for path in paths:
        for file in _inputs_of(path, say):
            if file.name in found:
                raise UserError(
                    f"{found[file.name].where} and {file.where} have the same name\nScore them into different folders."
                )
            found[file.name] = file
    return found


def _inputs_of(path: str, say: Callable[[str], None]) -> list[Input]:
    source = open_source(path)
    try:
        kind = source.filesystem.get_file_info(source.folder).type
    except OSError as error:
        raise unreadable(path, error, "Check its permissions.") from error
    if kind == fs.FileType.NotFound:
        raise UserError(f"{path} does not exist\nGive Parquet files or folders of them, and then OUT.")
    if kind == fs.FileType.File:
        folder, _, name = source.root.rpartition("/")
        parent = Source(folder, source.filesystem, source.folder.rpartition("/")[0])
        return [Input(parent, name, name)]
    listing = list_files(source, _STORAGE_TIMEOUT_S)
    line = skipped_line(source.root, listing.skipped)
    if line:
        say(line)
    return [Input(source, file.path, file.path) for file in listing.files]


def is_scored(path: Path) -> bool:
    """Whether `score` wrote a file, and nobody changed it: what is made from one inherits the mark in its footer."""
    return _mark(path) is not None


def _is_done(target: Path, file: Input, bundle: Bundle) -> bool:
    """Whether `target` is what scoring `file` with `bundle` gives."""
    mark = _mark(target) if target.is_file() else None
    return mark is not None and all(mark.get(key) == value for key, value in _made_of(file, bundle).items())


def _made_of(file: Input, bundle: Bundle) -> dict[str, object]:
    size = file.source.filesystem.get_file_info(file.source.path(file.path)).size
    return {"bundle_checksum": bundle.signature.checksum, "input": file.where, "input_bytes": size}


def _mark(path: Path) -> dict[str, object] | None:
    """What `score` left in a file that it wrote and that nobody changed."""
    try:
        with pq.ParquetFile(path) as parquet:
            mark = json.loads((parquet.metadata.metadata or {}).get(_MARK, b"null"))
            if not isinstance(mark, dict) or "digest" not in mark:
                return None
            columns = [PREFIX + task for task in mark["tasks"]]
            digest = _digest_of(parquet.schema_arrow)
            for number in range(parquet.num_row_groups):
                rows = parquet.read_row_group(number, columns=columns)
                digest.update(np.stack([rows[name].to_numpy() for name in columns], axis=1).tobytes())
            return mark if digest.hexdigest() == mark["digest"] else None
    except (OSError, pa.ArrowException, ValueError, KeyError):
        return None


def _digest_of(schema: pa.Schema) -> xxhash.xxh3_128:
    """Of the columns' names; predictions [R, T] of all row groups come after."""
    return xxhash.xxh3_128("\n".join(schema.names).encode("utf-8", "surrogateescape"))


def with_predictions(rows: pa.Table, predictions: npt.NDArray[np.float32], tasks: Sequence[str]) -> pa.Table:
    """`rows` with a float column `predicted_<task>` for every column of `predictions` [R, T]."""
    for task, column in zip(tasks, predictions.T, strict=True):
        rows = rows.append_column(PREFIX + task, pa.array(np.ascontiguousarray(column)))
    return rows


def _refuse_inside(out: str, paths: Sequence[str]) -> None:
    """Refuses OUT in a folder that is scored: the next time its scores would be taken for rows."""
    place = Path(out).resolve()
    sources = [open_source(path) for path in paths]
    for folder in (Path(source.folder).resolve() for source in sources if source.is_local):
        if folder.is_dir() and (folder == place or folder in place.parents):
            raise UserError(f"{out} lies in {folder}, which is scored\nGive OUT, the last argument, another place.")


def _score_file(bundle: Bundle, file: Input, target: Path) -> None:
    """Written beside `target` and renamed: there is a whole file or none."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        made_of = _made_of(file, bundle)
        with _opened(file) as parquet:
            schema = _schema(parquet.schema_arrow, bundle, file.where)
            with pq.ParquetWriter(draft, schema, write_page_checksum=True) as writer:
                digest, first_row = _digest_of(schema), 0
                for rows in _row_groups(parquet, file):
                    predictions = bundle.predict(_with_path_columns(rows, file, bundle), file.where, first_row)
                    writer.write_table(with_predictions(rows, predictions, bundle.tasks).cast(schema))
                    digest.update(predictions.tobytes())
                    first_row += rows.num_rows
                mark = {"bundle": str(bundle.folder), "tasks": bundle.tasks, "digest": digest.hexdigest()}
                mark |= made_of
                writer.add_key_value_metadata({_MARK.decode(): json.dumps(mark)})
        os.replace(draft, target)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{target} cannot be written: {error}\nGive OUT, the last argument, another place.") from error
    finally:
        draft.unlink(missing_ok=True)


def _opened(file: Input) -> pq.ParquetFile:
    try:
        opened = file.source.open(file.path)
        footer = read_footer(opened, file.where)
        if footer.encrypted_names:
            raise UserError(
                f"{file.where}: column {footer.encrypted_names[0]!r} is encrypted\nWrite the file without encryption."
            )
        return pq.ParquetFile(opened, metadata=footer.metadata, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file.where, error, "Restore the file.") from error


def _row_groups(parquet: pq.ParquetFile, file: Input) -> Iterator[pa.Table]:
    for number in range(parquet.num_row_groups):
        try:
            yield parquet.read_row_group(number)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(f"{file.where}, row group {number}", error, "Restore the file.") from error


def _with_path_columns(rows: pa.Table, file: Input, bundle: Bundle) -> pa.Table:
    """With the columns that are in the names of the folders alone: below the one that was given, then above it."""
    columns = bundle.transforms.columns
    rows = add_path_columns(rows, folder_of(file.path), columns, bundle.schema, file.where)
    missing = [column for column in columns if column not in rows.column_names]
    return add_path_columns(rows, folder_of(file.source.path(file.path)), missing, bundle.schema, file.where)


def _schema(schema: pa.Schema, bundle: Bundle, where: str) -> pa.Schema:
    """The columns of the scored file."""
    for name in (PREFIX + task for task in bundle.tasks):
        if name in schema.names:
            raise UserError(f"{where} has a column {name!r} already\nRemove it, or score the original file.")
        schema = schema.append(pa.field(name, pa.float32()))
    return schema.with_metadata({key: value for key, value in (schema.metadata or {}).items() if key != _MARK})
