"""The largest value of a column, from the statistics in the footers: no row is read."""

from functools import partial
from typing import Any

from configs.errors import UserError
from trainer.data.dataset.faults import until_answered
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import THREADS, footer_of
from trainer.data.dataset.source import Source, file_url, open_source
from trainer.data.dataset.threads import in_threads

_TIMEOUT_S = 120  # for which a storage that does not answer is asked again


def newest(manifest: Manifest, column: str, remedy: str) -> Any:
    """The largest value of `column` over all files, as a Python object.

    Raises:
        UserError: a file has no such column, or its footer does not say.
        StorageUnavailable: the storage does not answer.
    """
    paths = [file.path for file in manifest.files if sum(file.rows)]
    look = partial(_largest, open_source(manifest.root), column, remedy)
    return max(in_threads(look, paths, THREADS, 2 * _TIMEOUT_S))


def _largest(source: Source, column: str, remedy: str, path: str) -> Any:
    where = file_url(source.root, path)
    metadata = until_answered(partial(footer_of, source, path), _TIMEOUT_S).metadata
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = [group.column(place) for place in range(group.num_columns)]
        statistics = next((chunk.statistics for chunk in chunks if chunk.path_in_schema == column), None)
        if group.num_rows:
            if statistics is None or not statistics.has_min_max:
                raise UserError(f"{where}: the footer does not say the largest value of column {column!r}\n{remedy}")
            found.append(statistics.max)
    return max(found)
