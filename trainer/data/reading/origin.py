"""Where the rows of a step came from, for messages: files and row groups, and the row with the largest number."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch

from trainer.data.dataset.manifest import Manifest
from trainer.data.reading.batch import Batch
from trainer.data.reading.chunks import Layout
from trainer.data.reading.order import Order

_FILES, _ROW_GROUPS = 3, 4  # named in a message


def origin(order: Order, manifest: Manifest, epoch: int, step: int, lanes: Sequence[int]) -> str:
    """`part-00001.parquet (row groups 3, 0), part-00004.parquet (row group 2) and 5 more files`."""
    row_groups, _ = order.positions(epoch, step, lanes)
    files: dict[str, list[int]] = {}
    for number, _ in Counter(row_groups.tolist()).most_common():
        group = manifest.row_groups[number]
        files.setdefault(group.file.path, []).append(group.place)
    shown = [f"{path} ({_numbered(places)})" for path, places in list(files.items())[:_FILES]]
    more = len(files) - len(shown)
    return ", ".join(shown) + (f" and {more} more file{'s' if more > 1 else ''}" if more else "")


class Largest(NamedTuple):
    """The largest number of a batch among dense columns and labels, whatever its sign.

    Attributes:
        place: of its column, among those of the dense matrix and then the labels.
        row_group: by its number in the manifest. row: in it.
    """

    value: float
    place: int
    row_group: int
    row: int


def largest(batch: Batch, order: Order, layout: Layout) -> Largest | None:
    """Of a rank's batch; None where it has no row. layout: of that rank."""
    epoch, step = batch.position
    numbers = torch.cat([batch.dense, batch.labels], dim=1)
    if not numbers.numel():
        return None
    row, place = divmod(int(numbers.abs().argmax()), numbers.shape[1])
    slot, inside = divmod(row, layout.lane_batch_size)
    row_groups, rows = order.positions(epoch, step, layout.lanes[slot : slot + 1])
    if inside >= len(rows):
        return None
    return Largest(float(numbers[row, place]), place, int(row_groups[inside]), int(rows[inside]))


def _numbered(places: list[int]) -> str:
    more = len(places) - _ROW_GROUPS
    numbers = ", ".join(map(str, places[:_ROW_GROUPS])) + (f" and {more} more" if more > 0 else "")
    return f"row group{'s' if len(places) > 1 else ''} {numbers}"
