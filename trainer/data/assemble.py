"""Gathers the rows of a chunk into its batches, in one piece of recycled memory: a batch is a view of it.

The work goes lane by lane and feature by feature, so that a window's column stays in the cache while it is permuted
and dealt out to the batches. Which rows those are is planned in `trainer.data.plan`.

S steps, B rows of a batch on this rank, F sparse features, N IDs, D dense width, T tasks; R rows of a lane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from trainer.data.batch import Batch
from trainer.data.block import Block
from trainer.data.buffers import Buffers, room
from trainer.data.lane import LaneRows, Lengths
from trainer.data.plan import Chunk, Layout


@dataclass(frozen=True)
class Batches:
    """The batches of a chunk.

    Attributes:
        epoch, step: of the first one.
        rows: of all of them, padding not counted.
        nbytes: their memory.
        lengths: int32 [S, F, B].
        ends: [S][F]: where the IDs of a step's feature end in `values`.
        values, weights: of all IDs, by step, feature, row.
        dense, labels, label_weights: float32 [S, B, D], [S, B, T], [S, B, T].
    """

    epoch: int
    step: int
    rows: int
    nbytes: int
    lengths: Lengths
    ends: list[list[int]]
    values: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32] | None
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    label_weights: npt.NDArray[np.float32]

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
    steps, width, b, size = chunk.stretch.steps, len(layout.names), layout.lane_batch_size, layout.local_batch_size
    lengths = {slot: [lane.lengths(f) for f in range(width)] for slot, lane in lanes.items()}
    ids = sum(lane.count(part) for slot, lane in lanes.items() for part in lengths[slot])
    numbers = (layout.dense_width, layout.tasks, layout.tasks)
    memory = buffers.take(
        room(steps * width * size * 4, ids * 8, ids * 4 * layout.weighted, *(steps * size * n * 4 for n in numbers))
    )
    matrices = [memory.carve((steps, size, n), np.float32) for n in numbers]
    out_lengths = memory.carve((steps, width, size), np.int32)
    if len(lanes) < layout.slots or any(lane.rows < steps * b for lane in lanes.values()):
        for out in (*matrices, out_lengths):
            out.fill(0)
    for slot, lane in lanes.items():
        place = slice(slot * b, (slot + 1) * b)
        for name, out in zip(("dense", "labels", "label_weights"), matrices, strict=True):
            _deal(lane.numbers(name), out[:, place])
        for f, part in enumerate(lengths[slot]):
            _deal(np.broadcast_to(np.int32(1), lane.rows) if part is None else part, out_lengths[:, f, place])
    per_lane = out_lengths.reshape(steps, width, layout.slots, b).sum(axis=3, dtype=np.int64)
    ends = np.cumsum(per_lane).reshape(per_lane.shape)
    values = memory.carve((ids,), np.int64)
    weights = memory.carve((ids,), np.float32) if layout.weighted else None
    for slot, lane in lanes.items():
        for f, part in enumerate(lengths[slot]):
            stops = ends[:, f, slot]
            starts = stops - per_lane[:, f, slot]
            _deal_ids(lane.ids(f, part, layout.weighted), starts.tolist(), stops.tolist(), values, weights)
    return Batches(
        chunk.epoch,
        chunk.stretch.step,
        sum(lane.rows for lane in lanes.values()),
        memory.size,
        out_lengths,
        ends[:, :, -1].tolist(),
        values,
        weights,
        *matrices,
    )


def _deal(rows: np.ndarray, out: np.ndarray) -> None:
    """Writes `rows` [R, ...] to `out` [S, b, ...], step after step; what R does not fill stays."""
    b = out.shape[1]
    full, rest = divmod(len(rows), b)
    out[:full] = rows[: full * b].reshape(full, *out.shape[1:])
    if rest:
        out[full, :rest] = rows[full * b :]


def _deal_ids(
    ids: tuple[np.ndarray, np.ndarray],
    starts: Sequence[int],
    stops: Sequence[int],
    values: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32] | None,
) -> None:
    """Writes the IDs of a lane's feature and their weights: those of step s to [starts[s], stops[s])."""
    done = 0
    for start, stop in zip(starts, stops, strict=True):
        values[start:stop] = ids[0][done : done + stop - start]
        if weights is not None:
            weights[start:stop] = ids[1][done : done + stop - start]
        done += stop - start
