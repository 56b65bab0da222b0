"""The sample order: exact under any cut, any number of workers, any seed."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.reading.order import Order, lanes_of, permutation

SEGMENTS = st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6), min_size=1, max_size=4)


@st.composite
def orders(draw) -> Order:
    return Order(
        segments=tuple(np.array(rows, np.int64) for rows in draw(SEGMENTS)),
        seed=draw(st.integers(0, 2**63)),
        lanes=draw(st.integers(1, 9)),
        lane_batch_size=draw(st.integers(1, 7)),
        window=draw(st.sampled_from([0, 1, 3, 16, 1000])),
        permute_row_groups=draw(st.booleans()),
    )


@given(orders(), st.integers(0, 3), st.integers(0, 20))
def test_lanes_of_a_step_are_parts_of_it(order: Order, epoch: int, step: int) -> None:
    alone = [order.positions(epoch, step, [lane]) for lane in range(order.lanes)]
    whole = order.positions(epoch, step)
    assert all(np.array_equal(np.concatenate([lane[i] for lane in alone]), whole[i]) for i in (0, 1))


def batch(order: Order, epoch: int, step: int) -> list[tuple[int, int]]:
    return [(int(group), int(row)) for group, row in zip(*order.positions(epoch, step), strict=True)]


def rank_rows(order: Order, epoch: int, step: int, rank: int, world_size: int) -> list[tuple[int, int]]:
    """Rows of a rank in a step, lane after lane."""
    stretch = next(order.stretches(step, 1))
    lanes = lanes_of(rank, world_size, order.lanes)
    picks = [order.picks(epoch, stretch.segment, lane, stretch.start, order.lane_batch_size) for lane in lanes]
    return [row for lane in picks for row in flatten(lane)]


@given(orders(), st.integers(0, 3))
def test_every_row_once_an_epoch(order: Order, epoch: int) -> None:
    everything = [(group, row) for group, rows in enumerate(np.concatenate(order.segments)) for row in range(rows)]
    seen = [row for step in range(order.steps) for row in batch(order, epoch, step)]
    assert Counter(seen) == Counter(everything)


@given(orders(), st.integers(0, 3), st.data())
def test_batches_are_the_same_for_any_number_of_workers(order: Order, epoch: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, max(0, order.steps - 1)))
    if not order.steps:
        return
    whole = batch(order, epoch, step)
    for world_size in (1, 2, 3, 5, 8):
        if world_size <= order.lanes:
            parts = [rank_rows(order, epoch, step, rank, world_size) for rank in range(world_size)]
            assert Counter(row for part in parts for row in part) == Counter(whole)
            room = -(-order.lanes // world_size) * order.lane_batch_size
            assert max(len(part) for part in parts) <= room
    assert rank_rows(order, epoch, step, 0, 1) == whole


@given(orders())
def test_segments_come_one_after_another(order: Order) -> None:
    ends = np.cumsum([len(rows) for rows in order.segments])
    met = [
        {int(np.searchsorted(ends, group, "right")) for group, _ in batch(order, 0, step)}
        for step in range(order.steps)
    ]
    assert all(len(segments) == 1 for segments in met)
    assert sorted(met, key=min) == met


@given(orders(), st.integers(1, 20), st.data())
def test_a_seek_equals_a_replay(order: Order, period: int, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, order.steps))
    replayed = list(order.stretches(0, 1))[begin:]
    sought = list(order.stretches(begin, period))
    assert sum(stretch.steps for stretch in sought) == len(replayed)
    for stretch in sought:
        windows = {stretch.start // period, (stretch.start + stretch.steps * order.lane_batch_size - 1) // period}
        assert stretch.steps == 1 or len(windows) == 1
        first = replayed[stretch.step - begin]
        assert (first.segment, first.start) == (stretch.segment, stretch.start)
        for lane in range(order.lanes):
            rows = stretch.steps * order.lane_batch_size
            together = flatten(order.picks(1, stretch.segment, lane, stretch.start, rows))
            alone = []
            for one in replayed[stretch.step - begin :][: stretch.steps]:
                alone += flatten(order.picks(1, one.segment, lane, one.start, order.lane_batch_size))
            assert together == alone


def flatten(picks: list) -> list[tuple[int, int]]:
    rows = []
    for pick in picks:
        places = [(part.row_group, row) for part in pick.ranges for row in range(part.start, part.stop)]
        rows += places if pick.index is None else [places[i] for i in pick.index]
    return rows


@given(orders())
def test_rows_stay_in_their_window(order: Order) -> None:
    """A resume reads at most one window a lane: nothing is drawn from elsewhere."""
    unshuffled = Order(order.segments, order.seed, order.lanes, order.lane_batch_size, 0, order.permute_row_groups)
    for segment in range(len(order.segments)):
        for lane in range(order.lanes):
            rows = flatten(order.picks(2, segment, lane, 0, 10**6))
            plain = flatten(unshuffled.picks(2, segment, lane, 0, 10**6))
            width = order.window or 1
            for start in range(0, len(plain), width):
                assert sorted(rows[start : start + width]) == sorted(plain[start : start + width])


@given(st.integers(0, 3000), st.integers(0, 2**64), st.integers(0, 5))
@settings(max_examples=50)
def test_permutation_is_one(rows: int, seed: int, epoch: int) -> None:
    assert sorted(permutation(rows, (seed, epoch), (0, 0, 0))) == list(range(rows))


def test_permutation_is_a_stable_sort_of_high_bits() -> None:
    raw = np.random.Philox(key=[7, 1], counter=[0, 3, 4, 5]).random_raw(1000)
    assert (permutation(1000, (7, 1), (3, 4, 5)) == np.argsort(raw >> np.uint64(10), kind="stable")).all()


def test_permutations_differ_in_all_that_names_them() -> None:
    names = [((1, 2), (3, 4, 5)), ((0, 2), (3, 4, 5)), ((1, 0), (3, 4, 5))]
    names += [((1, 2), (0, 4, 5)), ((1, 2), (3, 0, 5)), ((1, 2), (3, 4, 0))]
    assert len({tuple(permutation(100, key, stream)) for key, stream in names}) == len(names)


def test_windows_are_uniform() -> None:
    """Row 0 of a window lands everywhere equally often: chi-squared with 63 degrees of freedom below its 99.99%."""
    places = [int(np.argmin(permutation(64, (5, 0), (window, 0, 1)))) for window in range(6400)]
    counts = np.bincount(places, minlength=64)
    assert ((counts - 100) ** 2 / 100).sum() < 120


@pytest.mark.parametrize(
    ("window", "digest"),
    [
        (0, "b495de93903feea37ef5c036e3c97485383ce162d3cf6628e93718487fae51c0"),
        (500, "9ab3c52e88da35998974e631f34f7d4fbf604932d1a26c048023048cd85b8010"),
    ],
)
def test_the_order_is_the_one_of_every_version(window: int, digest: str) -> None:
    """The first 10,000 positions. A change of this number breaks the resume of every run: make a new format instead."""
    rows = tuple(np.array([700 + 13 * i for i in range(day, day + 9)], np.int64) for day in range(2))
    order = Order(rows, seed=20_240_229, lanes=6, lane_batch_size=20, window=window, permute_row_groups=True)
    positions = [np.stack(order.positions(1, step)) for step in range(order.steps)]
    first = np.concatenate(positions, axis=1)[:, :10_000].astype("<i8")
    assert first.shape == (2, 10_000)
    assert hashlib.sha256(first.tobytes()).hexdigest() == digest
