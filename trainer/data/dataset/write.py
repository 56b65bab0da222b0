"""Writes Parquet data sets that are either whole or absent.

Files are zstd with page checksums, so that a flipped bit is noticed when it is read. A data set is staged in a folder
beside its place and renamed when it is complete: an interrupted `generate` or `prepare` is never mistaken for data.
What is in the rows is left to the generators and importers.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.outputs import check_output, make_folder

ROWS_PER_FILE = 100_000
ROWS_PER_ROW_GROUP = 16_384


@contextmanager
def whole_or_absent(root: str) -> Iterator[Path]:
    """An empty staging folder, renamed to `root` when the block ends well and deleted when it does not.

    Raises:
        UserError: `root` is a URL, or holds something already.
    """
    place = _free_place(root)
    staging = place.with_name(f".{place.name}.incomplete-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    make_folder(staging, "the data set", place)
    try:
        yield staging
        try:
            os.replace(staging, place)
        except OSError:  # another process was faster; anything else is raised as it is
            _free_place(root)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_parquet(table: pa.Table, path: Path, rows_per_row_group: int = ROWS_PER_ROW_GROUP) -> None:
    """Write one file under a temporary name, and rename it when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.incomplete")
    pq.write_table(table, temporary, row_group_size=rows_per_row_group, compression="zstd", write_page_checksum=True)
    os.replace(temporary, path)


def write_folder(
    table: pa.Table,
    folder: Path,
    rows_per_file: int = ROWS_PER_FILE,
    rows_per_row_group: int = ROWS_PER_ROW_GROUP,
) -> None:
    """Write the rows in order as part-00000.parquet, part-00001.parquet, ... of at most `rows_per_file` rows."""
    for number, start in enumerate(range(0, table.num_rows, rows_per_file)):
        write_parquet(table.slice(start, rows_per_file), folder / f"part-{number:05}.parquet", rows_per_row_group)


def _free_place(root: str) -> Path:
    if "://" in root:
        raise UserError(
            f"{root}: data sets are written to local folders only\nwrite it to a local folder and copy that one there"
        )
    place = Path(root).absolute()
    check_output(place, "the data set", "folder")
    return place
