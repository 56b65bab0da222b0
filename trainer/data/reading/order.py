"""Which rows form global batch g: a pure function of (row groups, seed, epoch, g), whatever reads them.

A segment's row groups are permuted and laid end to end; that sequence is cut into L equal lanes; a lane is cut into
windows, whose rows are permuted. Step g of an epoch takes the next rows of every lane. How many workers share the
lanes is not known here: rank r of W reads the lanes l with l mod W == r. Reading rows is left to `reader`.

The order is part of the contract between versions: a run that resumes under a newer one must meet the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from configs.schema import DataConfig
from trainer.data.dataset.manifest import Manifest

Indices = npt.NDArray[np.int64]

_ROW_GROUPS, _ROWS = 0, 1  # what a stream of random numbers permutes


class RowRange(NamedTuple):
    """Rows [start, stop) of a row group, numbered as in the manifest."""

    row_group: int
    start: int
    stop: int


class Pick(NamedTuple):
    """Rows in the order of training: `index` [N] points into the rows of `ranges` laid end to end; None takes all."""

    ranges: tuple[RowRange, ...]
    index: Indices | None


class Stretch(NamedTuple):
    """Consecutive steps [step, step + steps) of an epoch that lie in one segment, from lane row `start` on."""

    step: int
    steps: int
    segment: int
    start: int


def permutation(rows: int, key: tuple[int, int], stream: tuple[int, int, int]) -> Indices:
    """A permutation of range(rows), the same on every machine and NumPy version.

    Sorts the raw stream of Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) by
    its high bits, ties by place. `key` and `stream` name the stream; each number is taken modulo 2^64.
    """
    numbers = np.array([n % 2**64 for n in (*key, 0, *stream)], np.uint64)
    raw = np.random.Philox(key=numbers[:2], counter=numbers[2:]).random_raw(rows)
    places = np.uint64((1 << max(1, (rows - 1).bit_length())) - 1)
    keys = (raw & ~places) | np.arange(rows, dtype=np.uint64)  # unique: any sort gives the one result
    keys.sort()
    return (keys & places).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Order:
    """The order of the rows of a data set in every epoch.

    Attributes:
        segments: rows of each row group, an array a segment; row groups are numbered through all segments.
        lanes: L, cursors through a segment that advance together.
        lane_batch_size: rows that a step takes from each lane; the global batch size is L times as many.
        window: rows of a lane that are permuted together; 0 keeps them in order.
        permute_row_groups: whether the row groups of a segment are permuted in each epoch.
    """

    segments: tuple[Indices, ...]
    seed: int
    lanes: int
    lane_batch_size: int
    window: int
    permute_row_groups: bool

    @cached_property
    def segment_rows(self) -> tuple[int, ...]:
        """Rows of each segment."""
        return tuple(int(rows.sum()) for rows in self.segments)

    def lane_range(self, segment: int, lane: int) -> tuple[int, int]:
        """The places [start, stop) of a lane in its segment: equal lanes, but for one row."""
        rows = self.segment_rows[segment]
        return rows * lane // self.lanes, rows * (lane + 1) // self.lanes

    def segment_steps(self, segment: int) -> int:
        """Steps through a segment: its longest lane divided by the rows of a step, rounded up."""
        longest = -(-self.segment_rows[segment] // self.lanes)
        return -(-longest // self.lane_batch_size)

    @cached_property
    def segment_ends(self) -> frozenset[int]:
        """Steps of an epoch up to the end of each segment."""
        return frozenset(accumulate(self.segment_steps(segment) for segment in range(len(self.segments))))

    @cached_property
    def steps(self) -> int:
        """Steps of an epoch."""
        return max(self.segment_ends, default=0)

    def stretches(self, step: int, period: int) -> Iterator[Stretch]:
        """The steps of an epoch from `step` on, cut at segments and at every `period` rows of a lane.

        A step that goes over such a cut is a stretch of its own.
        """
        first, b = 0, self.lane_batch_size
        for segment in range(len(self.segments)):
            steps = self.segment_steps(segment)
            begin = max(step - first, 0)
            while begin < steps:
                until_cut = (period - begin * b % period) // b
                count = min(max(1, until_cut), steps - begin)
                yield Stretch(first + begin, count, segment, begin * b)
                begin += count
            first += steps

    def picks(self, epoch: int, segment: int, lane: int, start: int, rows: int) -> list[Pick]:
        """Rows [start, start + rows) of a lane in the order of training; fewer where the lane ends."""
        lane_start, lane_stop = self.lane_range(segment, lane)
        start, stop = lane_start + start, min(lane_start + start + rows, lane_stop)
        if start >= stop:
            return []
        row_groups, ends = _layout(self, epoch, segment)
        if not self.window:
            return [Pick(_ranges(row_groups, ends, start, stop), None)]
        picks = []
        for number in range((start - lane_start) // self.window, -(-(stop - lane_start) // self.window)):
            begin = lane_start + number * self.window
            end = min(begin + self.window, lane_stop)
            index = _window_permutation(end - begin, self.seed, epoch, segment, lane, number)
            part = index[max(start - begin, 0) : stop - begin]
            picks.append(Pick(_ranges(row_groups, ends, begin, end), part))
        return picks

    def positions(self, epoch: int, step: int, lanes: Sequence[int] | None = None) -> tuple[Indices, Indices]:
        """Global batch `step`: for each row its row group and its place there. For tests and for looking rows up.

        lanes: whose rows; None for all.
        """
        parts = []
        for stretch in self.stretches(step, 1):
            for lane in range(self.lanes) if lanes is None else lanes:
                for pick in self.picks(epoch, stretch.segment, lane, stretch.start, self.lane_batch_size):
                    parts.append(_resolve(pick))
            break
        nothing = np.empty(0, np.int64)
        return tuple(np.concatenate([nothing, *(part[i] for part in parts)]) for i in (0, 1))  # pyright: ignore


def _resolve(pick: Pick) -> tuple[Indices, Indices]:
    row_groups = np.concatenate([np.full(part.stop - part.start, part.row_group, np.int64) for part in pick.ranges])
    rows = np.concatenate([np.arange(part.start, part.stop, dtype=np.int64) for part in pick.ranges])
    return (row_groups, rows) if pick.index is None else (row_groups[pick.index], rows[pick.index])


@lru_cache(maxsize=4)
def _layout(order: Order, epoch: int, segment: int) -> tuple[Indices, Indices]:
    """A segment's row groups as the epoch lays them end to end, and where each ends."""
    rows = order.segments[segment]
    first = sum(len(before) for before in order.segments[:segment])
    chosen = np.arange(len(rows), dtype=np.int64)
    if order.permute_row_groups:
        chosen = permutation(len(rows), (order.seed, epoch), (0, 0, segment << 8 | _ROW_GROUPS))
    return first + chosen, np.cumsum(rows[chosen])


@lru_cache(maxsize=256)
def _window_permutation(rows: int, seed: int, epoch: int, segment: int, lane: int, number: int) -> Indices:
    index = permutation(rows, (seed, epoch), (number, lane, segment << 8 | _ROWS))
    index.flags.writeable = False
    return index


def _ranges(row_groups: Indices, ends: Indices, start: int, stop: int) -> tuple[RowRange, ...]:
    """The rows [start, stop) of a layout."""
    ranges = []
    for place in range(int(np.searchsorted(ends, start, "right")), len(ends)):
        begin = int(ends[place - 1]) if place else 0
        if begin >= stop:
            break
        if ends[place] > begin:
            low, high = max(start, begin), min(stop, int(ends[place]))
            ranges.append(RowRange(int(row_groups[place]), low - begin, high - begin))
    return tuple(ranges)


def lanes_of(rank: int, world_size: int, lanes: int) -> Sequence[int]:
    """The lanes that a rank reads. Every rank has room for ceil(lanes / world_size) of them."""
    return range(rank, lanes, world_size)


def sample_order(manifest: Manifest, data: DataConfig, seed: int, shuffle: bool) -> Order:
    """The order that a config gives to the rows of a manifest."""
    shuffle = shuffle and data.order != "sequential"
    return Order(
        segments=manifest.segments(data.order == "by_partition"),
        seed=seed,
        lanes=data.lanes,
        lane_batch_size=data.global_batch_size // data.lanes,
        window=data.shuffle_window if shuffle else 0,
        permute_row_groups=shuffle,
    )
