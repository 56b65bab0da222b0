"""Gathers the rows of a chunk into its batches, in one piece of recycled memory: a batch is a view of it.

The work goes lane by lane and feature by feature, so that a window's column stays in the cache while it is permuted
and dealt out to the batches. Which rows those are is in `trainer.data.reading.chunks`.

S steps, B rows of a batch on this rank, F sparse features, N IDs, D dense width, T tasks; R rows of a lane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from trainer.data.columns.block import Block
from trainer.data.reading.batch import Batch
from trainer.data.reading.buffers import Buffers, room
from trainer.data.reading.chunks import Chunk, Layout
from trainer.data.reading.lane import LaneRows, Lengths
from trainer.data.reading.row_keys import Keys, row_keys


@dataclass(frozen=True)
class Batches:
    """The batches of a chunk.

    Attributes:
        epoch, step: of the first one.
        nbytes: their memory.
        lengths: int32 [S, F, B].
        ends: [S][F]: where the IDs of a step's feature end in `values`.
        values, weights: of all IDs, by step, feature, row.
        dense, labels, label_weights: float32 [S, B, D], [S, B, T], [S, B, T].
        groups, row_keys: int64 [S, B], or none.
    """

    epoch: int
    step: int
    nbytes: int
    lengths: Lengths
    ends: list[list[int]]
    values: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32] | None
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    label_weights: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64] | None
    row_keys: Keys | None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, number: int, names: Sequence[str]) -> Batch:
        """The batch of step `number` of the chunk, viewed."""
        return Batch(
            self._sparse(number, names) if names else None,
            torch.from_numpy(self.dense[number]),
            torch.from_numpy(self.labels[number]),
            torch.from_numpy(self.label_weights[number]),
            (self.epoch, self.step + number),
            None if self.groups is None else torch.from_numpy(self.groups[number]),
            None if self.row_keys is None else torch.from_numpy(self.row_keys[number]),
        )

    def _sparse(self, number: int, names: Sequence[str]) -> KeyedJaggedTensor:
        start = self.ends[number - 1][-1] if number else 0
        stop = self.ends[number][-1]
        offsets = [0, *(end - start for end in self.ends[number])]
        return KeyedJaggedTensor(
            keys=list(names),
            values=torch.from_numpy(self.values[start:stop]),
            weights=None if self.weights is None else torch.from_numpy(self.weights[start:stop]),
            lengths=torch.from_numpy(self.lengths[number].reshape(-1)),
            stride=self.lengths.shape[2],
            length_per_key=[end - begin for begin, end in pairwise(offsets)],
            offset_per_key=offsets,
        )


def assemble(chunk: Chunk, layout: Layout, block: Callable[[int], Block], buffers: Buffers) -> Batches:
    """Gathers a chunk's rows; `block` gives the rows of a row group."""
    lanes = {slot: LaneRows(picks, block) for slot, picks in enumerate(chunk.picks) if picks}
    steps, width, size = chunk.stretch.steps, len(layout.names), layout.local_batch_size
    bags = {slot: [lane.lengths(f) for f in range(width)] for slot, lane in lanes.items()}
    counts = _count_ids(lanes, bags, layout, steps)
    ids, numbers = int(counts.sum()), (layout.dense_width, layout.tasks, layout.tasks)
    memory = buffers.take(
        room(steps * width * size * 4, ids * 8, ids * 4 * layout.weighted, *(steps * size * n * 4 for n in numbers))
    )
    is_full = len(lanes) == layout.slots and all(lane.rows == steps * layout.lane_batch_size for lane in lanes.values())
    matrices = [memory.carve((steps, size, n), np.float32) for n in numbers]
    lengths = memory.carve((steps, width, size), np.int32)
    values = memory.carve((ids,), np.int64)
    weights = memory.carve((ids,), np.float32) if layout.weighted else None
    _deal_numbers(lanes, matrices, layout.lane_batch_size, is_full)
    _deal_lengths(lanes, bags, lengths, layout.lane_batch_size, is_full)
    _deal_ids(lanes, counts, values, weights)
    ends = np.cumsum(counts.sum(axis=2)).reshape(steps, width)
    position = chunk.epoch, chunk.stretch.step
    groups = _deal_groups(lanes, steps, layout) if layout.grouped else None
    keys = None if layout.seed is None else _keys(chunk, layout, layout.seed)
    return Batches(
        *position, memory.size, lengths, ends.tolist(), values, weights, *matrices, groups=groups, row_keys=keys
    )


def _count_ids(
    lanes: Mapping[int, LaneRows], bags: Mapping[int, list[Lengths | None]], layout: Layout, steps: int
) -> npt.NDArray[np.int64]:
    """IDs of each step, feature and slot [S, F, slots]."""
    b = layout.lane_batch_size
    counts = np.zeros((steps, len(layout.names), layout.slots), np.int64)
    for slot, lane in lanes.items():
        full, rest = divmod(lane.rows, b)
        for f, lengths in enumerate(bags[slot]):
            counts[:full, f, slot] = b if lengths is None else lengths[: full * b].reshape(full, b).sum(axis=1)
            if rest:
                counts[full, f, slot] = rest if lengths is None else lengths[full * b :].sum()
    return counts


def _deal_numbers(lanes: Mapping[int, LaneRows], matrices: Sequence[np.ndarray], b: int, is_full: bool) -> None:
    """Writes dense columns, labels and label weights [S, B, ...]; zeros where no lane gives a row."""
    for name, out in zip(("dense", "labels", "label_weights"), matrices, strict=True):
        if not is_full:
            out.fill(0)
        for slot, lane in lanes.items():
            _deal(lane.numbers(name), out[:, slot * b : (slot + 1) * b])


def _deal_groups(lanes: Mapping[int, LaneRows], steps: int, layout: Layout) -> npt.NDArray[np.int64]:
    """Groups [S, B], in memory of their own: evaluation alone has them."""
    out, b = np.zeros((steps, layout.local_batch_size), np.int64), layout.lane_batch_size
    for slot, lane in lanes.items():
        _deal(lane.groups(), out[:, slot * b : (slot + 1) * b])
    return out


def _keys(chunk: Chunk, layout: Layout, seed: int) -> Keys:
    """Keys [S, B], in memory of their own; a slot without a lane has those of a lane that is not there."""
    stretch, slots = chunk.stretch, [*layout.lanes, *range(-1, len(layout.lanes) - layout.slots - 1, -1)]
    steps = range(stretch.step, stretch.step + stretch.steps)
    return row_keys(seed, chunk.epoch, steps, slots, layout.lane_batch_size).reshape(len(steps), -1)


def _deal_lengths(
    lanes: Mapping[int, LaneRows], bags: Mapping[int, list[Lengths | None]], out: Lengths, b: int, is_full: bool
) -> None:
    """Writes the lengths of bags [S, F, B]; zero where no lane gives a row."""
    out.fill(1 if is_full else 0)
    for slot, lane in lanes.items():
        for f, lengths in enumerate(bags[slot]):
            if lengths is None and is_full:
                continue
            ones = np.broadcast_to(np.int32(1), lane.rows)
            _deal(ones if lengths is None else lengths, out[:, f, slot * b : (slot + 1) * b])


def _deal(rows: np.ndarray, out: np.ndarray) -> None:
    """Writes `rows` [R, ...] to `out` [S, b, ...], step after step; what R does not fill stays."""
    b = out.shape[1]
    full, rest = divmod(len(rows), b)
    out[:full] = rows[: full * b].reshape(full, *out.shape[1:])
    if rest:
        out[full, :rest] = rows[full * b :]


def _deal_ids(
    lanes: Mapping[int, LaneRows],
    counts: npt.NDArray[np.int64],
    values: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32] | None,
) -> None:
    """Writes IDs and their weights by step, feature and slot, `counts` each."""
    stops = np.cumsum(counts).reshape(counts.shape)
    starts = stops - counts
    for slot, lane in lanes.items():
        for f in range(counts.shape[1]):
            ids, id_weights = lane.ids(f, weights is not None)
            done = 0
            for start, stop in zip(starts[:, f, slot].tolist(), stops[:, f, slot].tolist(), strict=True):
                values[start:stop] = ids[done : done + stop - start]
                if weights is not None:
                    weights[start:stop] = id_weights[done : done + stop - start]
                done += stop - start
