"""The largest value of a column, from the statistics in the footers or the names of folders: no row is read."""

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


def newest(manifest: Manifest, column: str, remedy: str) -> Any:
    """The largest value of `column` over all files, as a Python object.

    Raises:
        UserError: a file has no such column, its footer does not say, or no folder has a value of it.
        StorageUnavailable: the storage does not answer.
    """
    files = [file for file in manifest.files if sum(file.rows)]
    look = partial(_largest, open_source(manifest.root), manifest, column, remedy)
    found = [value for value in in_threads(look, files, THREADS, 2 * _TIMEOUT_S) if value is not None]
    if not found:
        raise UserError(f"{manifest.root}: column {column!r} has no value\n{remedy}")
    return max(found)


def _largest(source: Source, manifest: Manifest, column: str, remedy: str, file: DataFile) -> Any:
    where = file_url(source.root, file.path)
    footer = until_answered(partial(footer_of, source, file.path), _TIMEOUT_S)
    if column not in footer.schema.names and column in values_of(file.folder):
        return path_value(file.folder, column, manifest.schemas[file.schema].field(column).type, where).as_py()
    found = []
    for number in range(footer.metadata.num_row_groups):
        group, place = footer.metadata.row_group(number), footer.columns.get(column)
        statistics = None if place is None else group.column(place).statistics
        if group.num_rows:
            if statistics is None or not statistics.has_min_max:
                raise UserError(f"{where}: the footer does not say the largest value of column {column!r}\n{remedy}")
            found.append(statistics.max)
    return max(found)
