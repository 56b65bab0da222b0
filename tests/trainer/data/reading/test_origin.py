"""Where the rows of a step came from, in words."""

import numpy as np
import pyarrow as pa

from trainer.data.dataset.manifest import DataFile, Manifest
from trainer.data.reading.order import Order
from trainer.data.reading.origin import origin

ROWS = (8, 4, 4)  # of the row groups of each file


def files(count: int) -> tuple[Order, Manifest]:
    """In order, two lanes, eight rows a step."""
    made = tuple(DataFile(f"day/part-{n}.parquet", 9, "", ROWS, 9, 0) for n in range(count))
    manifest = Manifest("data", made, (pa.schema([]),))
    return Order((np.array(ROWS * count, np.int64),), 0, 2, 4, 0, False), manifest


def test_files_and_row_groups_of_the_lanes_that_are_asked_for() -> None:
    order, manifest = files(2)
    assert origin(order, manifest, 0, 0, [0]) == "day/part-0.parquet (row group 0)"
    assert origin(order, manifest, 0, 2, [0]) == "day/part-0.parquet (row group 1)"
    assert origin(order, manifest, 0, 3, [0, 1]) == (
        "day/part-0.parquet (row group 2), day/part-1.parquet (row group 2)"
    )


def test_those_with_most_rows_come_first_and_the_rest_is_counted() -> None:
    _, manifest = files(6)
    order = Order((np.array(ROWS * 6, np.int64),), 0, 1, 58, 0, False)
    assert origin(order, manifest, 0, 0, [0]) == (
        "day/part-0.parquet (row groups 0, 1, 2), day/part-1.parquet (row groups 0, 1, 2), "
        "day/part-2.parquet (row groups 0, 1, 2) and 1 more file"
    )
