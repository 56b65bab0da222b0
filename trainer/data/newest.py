"""The largest value of a column, from the statistics in the footers: no row is read."""

from functools import partial
from typing import Any

from configs.errors import UserError
from trainer.data.manifest import Manifest
from trainer.data.scan import THREADS
from trainer.data.source import open_source, read_footer
from trainer.data.threads import in_threads


def newest(manifest: Manifest, column: str, remedy: str) -> Any:
    """The largest value of `column` over all files, as a Python object.

    Raises:
        UserError: a file has no such column, or its footer does not say.
    """
    paths = [file.path for file in manifest.files if sum(file.rows)]
    return max(in_threads(partial(_largest, manifest.root, column, remedy), paths, THREADS, 120))


def _largest(root: str, column: str, remedy: str, path: str) -> Any:
    source = open_source(root)
    where = f"{root}/{path}"
    with source.open(path) as file:
        metadata = read_footer(file, where).metadata
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
