"""The largest value of a column by row group, from statistics in footers or names of folders: no row is read."""

from functools import partial
from typing import Any

from configs.errors import UserError
from trainer.data.dataset.faults import until_answered
from trainer.data.dataset.manifest import DataFile, Manifest
from trainer.data.dataset.path_columns import path_value, values_of
from trainer.data.dataset.scan import THREADS, footer_of
from trainer.data.dataset.source import Source, file_url, open_source
from trainer.data.dataset.threads import in_threads

_TIMEOUT_S = 120  # for which a storage that does not answer is asked again

Largest = list[tuple[Any, int]]


def largest(manifest: Manifest, column: str, remedy: str | None) -> Largest | None:
    """The largest value of `column` in each row group, as a Python object, and the row group's rows.

    Args:
        remedy: what to do about a footer that does not say; with None, the answer is None then.

    Raises:
        UserError: a footer does not say, or no file and no folder has a value.
        StorageUnavailable: the storage does not answer.
    """
    files = [file for file in manifest.files if sum(file.rows)]
    look = partial(_largest, open_source(manifest.root), manifest, column, remedy)
    found = list(in_threads(look, files, THREADS, 2 * _TIMEOUT_S))
    groups = [group for of_file in found for group in of_file or []]
    if remedy is not None and not groups:
        raise UserError(f"{manifest.root}: column {column!r} has no value\n{remedy}")
    return None if None in found or not groups else groups


def _largest(source: Source, manifest: Manifest, column: str, remedy: str | None, file: DataFile) -> Largest | None:
    where = file_url(source.root, file.path)
    footer = until_answered(partial(footer_of, source, file.path), _TIMEOUT_S)
    if column not in footer.schema.names and column in values_of(file.folder):
        value = path_value(file.folder, column, manifest.schemas[file.schema].field(column).type, where).as_py()
        return [] if value is None else [(value, sum(file.rows))]
    found: Largest = []
    for number in range(footer.metadata.num_row_groups):
        group, place = footer.metadata.row_group(number), footer.columns.get(column)
        statistics = None if place is None else group.column(place).statistics
        if not group.num_rows:
            continue
        if statistics is None or not statistics.has_min_max:
            if remedy is None:
                return None
            raise UserError(f"{where}: the footer does not say the largest value of column {column!r}\n{remedy}")
        try:
            found.append((statistics.max, group.num_rows))
        except (OverflowError, ValueError) as error:  # a time that Python has no date for
            raise UserError(f"{where}: column {column!r} has a time that cannot be: {error}\nCorrect it.") from None
    return found
