"""What a rank reads next: chunks of steps, with the rows that each of its lanes gives them.

B rows of a batch on this rank, D dense width, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from trainer.data.reading.order import Order, Pick, Stretch

_ORDERED_ROWS = 16_384  # rows of a lane in a chunk without windows


@dataclass(frozen=True)
class Layout:
    """The shape of a rank's batches.

    Attributes:
        names: sparse features.
        weighted: whether their IDs have weights.
        lanes: that this rank reads.
        slots: lanes that every rank has room for: ceil(L / W).
        lane_batch_size: rows that a step takes from each lane.
        dense_width: D.
        tasks: T.
        grouped: whether rows have groups.
        seed: of the rows' keys; None where rows get none.
    """

    names: tuple[str, ...]
    weighted: bool
    lanes: tuple[int, ...]
    slots: int
    lane_batch_size: int
    dense_width: int
    tasks: int
    grouped: bool
    seed: int | None

    @property
    def local_batch_size(self) -> int:
        """B, the same on all ranks."""
        return self.slots * self.lane_batch_size


@dataclass(frozen=True)
class Chunk:
    """Consecutive steps of an epoch, and the rows of each of the rank's lanes that they take."""

    epoch: int
    stretch: Stretch
    picks: tuple[tuple[Pick, ...], ...]

    @cached_property
    def row_groups(self) -> tuple[int, ...]:
        """The row groups that hold the rows, in the order of their first use."""
        used = (part.row_group for picks in self.picks for pick in picks for part in pick.ranges)
        return tuple(dict.fromkeys(used))


def chunks(order: Order, layout: Layout, epoch: int, step: int) -> Iterator[Chunk]:
    """The chunks from `step` to the end of an epoch: the steps of a window, and those that need two windows."""
    for stretch in order.stretches(step, order.window or _ORDERED_ROWS):
        count = stretch.steps * order.lane_batch_size
        picks = (order.picks(epoch, stretch.segment, lane, stretch.start, count) for lane in layout.lanes)
        yield Chunk(epoch, stretch, tuple(tuple(lane) for lane in picks))
