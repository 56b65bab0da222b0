"""Gathers rows of blocks into the batches of several steps at once.

All batches of a chunk lie in a few arrays, steps first: a batch is a view of them, and the cost of a gather is paid
once for many steps. B rows of a batch on this rank, F sparse features, S steps, D dense width, T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from trainer.data.batch import Batch
from trainer.data.block import Bags, Block, join, weights_of
from trainer.data.order import Order, Pick, Stretch


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
    """

    names: tuple[str, ...]
    weighted: bool
    lanes: tuple[int, ...]
    slots: int
    lane_batch_size: int
    dense_width: int
    tasks: int

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

    @property
    def row_groups(self) -> tuple[int, ...]:
        """The row groups that hold the rows, in the order of their first use."""
        runs = (run.row_group for picks in self.picks for pick in picks for run in pick.runs)
        return tuple(dict.fromkeys(runs))


@dataclass(frozen=True)
class Batches:
    """The batches of a chunk.

    Attributes:
        epoch, step: of the first one.
        rows: of all batches, padding not counted.
        lengths: int32 [S, F, B].
        ends: int64 [S, F]: where the IDs of a step's feature end in `values`.
        values, weights: of all IDs, by step, feature, row.
        dense, labels, label_weights: [S, B, D], [S, B, T], [S, B, T].
    """

    epoch: int
    step: int
    rows: int
    lengths: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32] | None
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    label_weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        sparse = self.lengths.nbytes + self.values.nbytes + (0 if self.weights is None else self.weights.nbytes)
        return sparse + self.dense.nbytes + self.labels.nbytes + self.label_weights.nbytes

    def batch(self, number: int, names: Sequence[str]) -> Batch:
        """The batch of one step, viewed."""
        return Batch(
            self._sparse(number, names) if names else None,
            torch.from_numpy(self.dense[number]),
            torch.from_numpy(self.labels[number]),
            torch.from_numpy(self.label_weights[number]),
            (self.epoch, self.step + number),
        )

    def _sparse(self, number: int, names: Sequence[str]) -> KeyedJaggedTensor:
        start = int(self.ends[number - 1, -1]) if number else 0
        ends = [end - start for end in self.ends[number].tolist()]
        offsets = [0, *ends]
        weights = None if self.weights is None else torch.from_numpy(self.weights[start : start + ends[-1]])
        return KeyedJaggedTensor(
            keys=list(names),
            values=torch.from_numpy(self.values[start : start + ends[-1]]),
            weights=weights,
            lengths=torch.from_numpy(self.lengths[number].reshape(-1)),
            stride=self.lengths.shape[2],
            length_per_key=[end - begin for begin, end in zip(offsets, ends, strict=False)],
            offset_per_key=offsets,
        )


def plan(order: Order, layout: Layout, epoch: int, step: int, rows: int) -> Iterator[Chunk]:
    """The chunks from `step` to the end of an epoch, of about `rows` rows a lane."""
    for stretch in order.stretches(step, max(1, rows // order.lane_batch_size)):
        count = stretch.steps * order.lane_batch_size
        picks = (order.picks(epoch, stretch.segment, lane, stretch.start, count) for lane in layout.lanes)
        yield Chunk(epoch, stretch, tuple(tuple(lane) for lane in picks))


def assemble(chunk: Chunk, layout: Layout, block: Callable[[int], Block]) -> Batches:
    """Gathers a chunk's rows; `block` gives the rows of a row group."""
    lanes = [_lane(picks, layout, block) for picks in chunk.picks]
    steps, b, slots = chunk.stretch.steps, layout.lane_batch_size, layout.slots
    features = [[lane.bags[f] for lane in lanes] for f in range(len(layout.names))]
    lengths = np.zeros((steps, len(features), slots * b), np.int32)
    for f, bags in enumerate(features):
        for slot, part in enumerate(bags):
            row_lengths = np.ones(len(part.values), np.int32) if part.lengths is None else part.lengths
            _spread(row_lengths, lengths[:, f, slot * b : (slot + 1) * b])
    weights = None
    if layout.weighted:
        weights = _interleave(features, [[weights_of(bag) for bag in bags] for bags in features], steps, b)
    return Batches(
        chunk.epoch,
        chunk.stretch.step,
        sum(len(lane) for lane in lanes),
        lengths,
        np.cumsum(lengths.sum(axis=2, dtype=np.int64)).reshape(steps, len(features)),
        _interleave(features, [[bag.values for bag in bags] for bags in features], steps, b),
        weights,
        _rows([lane.dense for lane in lanes], steps, b, slots),
        _rows([lane.labels for lane in lanes], steps, b, slots),
        _rows([lane.label_weights for lane in lanes], steps, b, slots),
    )


def _lane(picks: Sequence[Pick], layout: Layout, block: Callable[[int], Block]) -> Block:
    """The rows of a lane in the order of training."""
    if not picks:
        return Block.empty(0, len(layout.names), layout.dense_width, layout.tasks)
    return join([_gather(pick, block) for pick in picks])


def _gather(pick: Pick, block: Callable[[int], Block]) -> Block:
    source = join([block(run.row_group).narrow(run.start, run.stop) for run in pick.runs])
    return source if pick.index is None else source.take(pick.index)


def _spread(rows: np.ndarray, out: np.ndarray) -> None:
    """Copies `rows` [N, ...] into `out` [S, B, ...], step after step; what N does not fill stays."""
    b = out.shape[1]
    full, rest = divmod(len(rows), b)
    out[:full] = rows[: full * b].reshape(full, *out.shape[1:])
    if rest:
        out[full, :rest] = rows[full * b :]


def _rows(lanes: Sequence[np.ndarray], steps: int, b: int, slots: int) -> npt.NDArray[np.float32]:
    """Rows [N, ...] of each lane as [S, slots * b, ...], zero where lanes are missing or end."""
    whole = len(lanes) == slots and all(len(lane) == steps * b for lane in lanes)
    out = (np.empty if whole else np.zeros)((steps, slots * b, *lanes[0].shape[1:]), np.float32)
    for slot, lane in enumerate(lanes):
        _spread(lane, out[:, slot * b : (slot + 1) * b])
    return out


def _interleave(
    features: Sequence[Sequence[Bags]], parts: Sequence[Sequence[np.ndarray]], steps: int, b: int
) -> np.ndarray:
    """Elements of the bags of features' lanes [F][lanes], by step, then feature, then lane."""
    bounds = [[_bounds(bag, steps, b) for bag in bags] for bags in features]
    pieces = [
        part[bound[step] : bound[step + 1]]
        for step in range(steps)
        for lanes, lane_bounds in zip(parts, bounds, strict=True)
        for part, bound in zip(lanes, lane_bounds, strict=True)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)


def _bounds(bags: Bags, steps: int, b: int) -> list[int]:
    """Where the IDs of each step start, and where the last end."""
    rows = len(bags.values) if bags.lengths is None else len(bags.lengths)
    starts = np.minimum(np.arange(steps + 1) * b, rows)
    return (starts if bags.lengths is None else bags.offsets[starts]).tolist()
