"""Scores Parquet files with a bundle: the rows as they are, and a column of predictions for every task beside them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.outputs import check_lasts
from trainer.data.dataset.faults import unreadable
from trainer.data.dataset.footers import read_footer
from trainer.data.dataset.listing import SUFFIXES, list_files, skipped_line
from trainer.data.dataset.partitions import folder_of
from trainer.data.dataset.path_columns import add_path_columns
from trainer.data.dataset.source import Source, file_url, open_source
from trainer.serving.bundle import Bundle
from trainer.serving.scored_file import MARK, PREFIX, ScoredFile, digest_of

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
) -> list[Path | str]:
    """Scores `files` row group by row group, in order, and returns what was written.

    Args:
        bundle: folder that `export` wrote.
        files: Parquet files, or folders of them: what belongs to one is as in training.
        out: a file for one input file; else a folder, in which every input gets a file of its own name (below a
            folder, its path there). Local, or a URL.
        overwrite: replace files that were scored before.
        resume: keep those that this very bundle scored from inputs of the same size, and score the rest.
        verify: compare the checksums of the bundle's files.
        say: given a line about what is skipped, about files without a row, and when all is done.

    Raises:
        UserError: no such file, a column is missing or is taken, two inputs would get the same name, or a file that
            `score` did not write is in the way.
    """
    if "://" not in out:
        check_lasts(out, "OUT, the last argument,")
    inputs = find_inputs(files, say)
    targets = _targets(out, inputs)
    _refuse_inside(out, files)
    loaded = Bundle(bundle, verify=verify)
    done = [name for name in targets if resume and _is_done(targets[name], inputs[name], loaded)]
    if done:
        say(f"{len(done)} of {len(targets)} files are scored already")
    left = [name for name in targets if name not in done]
    for name in left:
        targets[name].check(overwrite or resume)
    rows = {name: _score_file(loaded, inputs[name], targets[name]) for name in left}
    for name in (name for name in left if not rows[name]):
        say(f"{inputs[name].where} has no rows")
    if left:
        place = targets[left[0]].place if len(targets) == 1 else file_url(out, "").rstrip("/")
        say(f"done: {sum(rows.values()):,} rows of {len(left):,} file{'s' * (len(left) > 1)}, scored into {place}")
    return [targets[name].place for name in (*done, *left)]


def _targets(out: str, inputs: Mapping[str, Input]) -> dict[str, ScoredFile]:
    """Where the scores of each input go."""
    place = open_source(out)
    if len(inputs) == 1 and place.folder.lower().endswith(SUFFIXES):
        folder, name = in_folder(place)
        return dict.fromkeys(inputs, ScoredFile(folder, name))
    return {name: ScoredFile(place, name) for name in inputs}


def in_folder(source: Source) -> tuple[Source, str]:
    """A source that is one file, as its folder and its name there."""
    place, mark, options = source.root.partition("?") if "://" in source.root else (source.root, "", "")
    folder, _, name = place.rpartition("/")
    return Source(folder + mark + options, source.filesystem, source.folder.rpartition("/")[0]), name


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
        folder, name = in_folder(source)
        return [Input(folder, name, name)]
    listing = list_files(source, _STORAGE_TIMEOUT_S)
    line = skipped_line(source.root, listing.skipped)
    if line:
        say(line)
    return [Input(source, file.path, file.path) for file in listing.files]


def _is_done(target: ScoredFile, file: Input, bundle: Bundle) -> bool:
    """Whether `target` is what scoring `file` with `bundle` gives."""
    mark = target.mark() if target.is_there() else None
    return mark is not None and all(mark.get(key) == value for key, value in _made_of(file, bundle).items())


def _made_of(file: Input, bundle: Bundle) -> dict[str, object]:
    size = file.source.filesystem.get_file_info(file.source.path(file.path)).size
    return {"bundle_checksum": bundle.signature.checksum, "input": file.where, "input_bytes": size}


def with_predictions(rows: pa.Table, predictions: npt.NDArray[np.float32], tasks: Sequence[str]) -> pa.Table:
    """`rows` with a float column `predicted_<task>` for every column of `predictions` [R, T]."""
    for task, column in zip(tasks, predictions.T, strict=True):
        rows = rows.append_column(PREFIX + task, pa.array(np.ascontiguousarray(column)))
    return rows


def _refuse_inside(out: str, paths: Sequence[str]) -> None:
    """Refuses OUT in a folder that is scored: the next time its scores would be taken for rows."""
    place = open_source(out)
    for folder in (open_source(path) for path in paths):
        if folder.filesystem.equals(place.filesystem) and _is_inside(_real(place), _real(folder)):
            name = file_url(folder.root, "").rstrip("/")
            raise UserError(f"{out} lies in {name}, which is scored\nGive OUT, the last argument, another place.")


def _real(source: Source) -> PurePath:
    return Path(source.folder).resolve() if source.is_local else PurePosixPath(source.folder)


def _is_inside(place: PurePath, folder: PurePath) -> bool:
    is_file = isinstance(folder, Path) and not folder.is_dir()
    return not is_file and (place == folder or folder in place.parents)


def _score_file(bundle: Bundle, file: Input, target: ScoredFile) -> int:
    """Returns how many rows it scored."""
    made_of = _made_of(file, bundle)
    with _opened(file) as parquet:
        schema = _schema(parquet.schema_arrow, bundle, file.where)
        with target.writer(schema) as writer:
            digest, first_row = digest_of(schema), 0
            for rows in _row_groups(parquet, file):
                predictions = bundle.predict(_with_path_columns(rows, file, bundle), file.where, first_row)
                writer.write_table(with_predictions(rows, predictions, bundle.tasks).cast(schema))
                digest.update(predictions.tobytes())
                first_row += rows.num_rows
            mark = {"bundle": str(bundle.folder), "tasks": bundle.tasks, "digest": digest.hexdigest()} | made_of
            writer.add_key_value_metadata({MARK.decode(): json.dumps(mark)})
    return first_row


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
    return schema.with_metadata({key: value for key, value in (schema.metadata or {}).items() if key != MARK})
