"""The reader gives the rows of the sample order, whole, to any number of workers, and stops when it is told to."""

import gc
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import UserError
from configs.schema import DataConfig
from embeddings.features.feature_transforms import FeatureTransforms
from tests.trainer.data import rows
from trainer.data.dataset.faults import DataError
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import build_manifest
from trainer.data.reading.decode import Decoder
from trainer.data.reading.reader import Reader

FILES = {"day=1/a.parquet": 130, "day=1/b.parquet": 45, "day=2/a.parquet": 211}
ROWS = sum(FILES.values())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("rows")
    rows.write(root, FILES, rows_per_row_group=40)
    return build_manifest(str(root), "train")


def config(**changes) -> DataConfig:
    settings = {"root": "", "global_batch_size": 48, "lanes": 8, "shuffle_window": 16, "threads": 2}
    return DataConfig(**settings | changes)


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "reader"]


@given(
    st.sampled_from(["shuffled", "by_partition", "sequential"]),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(0, 100),
    st.integers(1, 9),
    st.integers(1, 3),
)
@settings(max_examples=30, deadline=None)
def test_every_row_once(
    manifest: Manifest, order: str, lanes: int, lane_rows: int, window: int, world_size: int, threads: int
) -> None:
    data = config(order=order, lanes=lanes, global_batch_size=lanes * lane_rows, shuffle_window=window, threads=threads)
    world_size = min(world_size, lanes)
    seen, steps, sizes = Counter(), set(), set()
    for rank in range(world_size):
        reader = rows.reader(manifest, data, rank, world_size)
        batches = list(reader.batches(1))
        assert [batch.position for batch in batches] == [(1, step) for step in range(reader.steps_per_epoch)]
        seen += rows.everything(batches)
        steps.add(len(batches))
        sizes.update(len(batch.labels) for batch in batches)
    assert seen == Counter(range(ROWS))
    assert len(steps) == 1
    assert sizes == {-(-lanes // world_size) * lane_rows}


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_groups_stay_with_their_rows(manifest: Manifest, world_size: int, shuffle: bool) -> None:
    for rank in range(world_size):
        reader = rows.reader(manifest, config(), rank, world_size, shuffle=shuffle, group_column="row")
        for batch in reader.batches(0):
            assert batch.sparse is not None
            assert batch.groups is not None
            lengths = batch.sparse["row"].lengths()
            assert batch.groups[lengths == 1].tolist() == batch.sparse["row"].values().tolist()
            assert not batch.groups[lengths == 0].any()


@pytest.mark.parametrize("window", [0, 7, 16])
@pytest.mark.parametrize("world_size", [2, 3, 5, 8])
def test_global_batches_are_those_of_one_worker(manifest: Manifest, world_size: int, window: int) -> None:
    data = config(order="by_partition", shuffle_window=window)
    alone = [Counter(rows.check(batch)) for batch in rows.reader(manifest, data).batches(0)]
    together = [Counter() for _ in alone]
    for rank in range(world_size):
        for step, batch in enumerate(rows.reader(manifest, data, rank, world_size).batches(0)):
            together[step] += Counter(rows.check(batch))
    assert together == alone


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_row_has_its_key_on_any_worker(manifest: Manifest, world_size: int) -> None:
    def keys(rank: int, workers: int, step: int = 0) -> dict[int, int]:
        found: dict[int, int] = {}
        for batch in rows.reader(manifest, config(), rank, workers).batches(1, step):
            assert batch.sparse is not None
            assert batch.row_keys is not None
            given = batch.sparse["row"].lengths() == 1  # the others only pad
            found |= zip(rows.check(batch), batch.row_keys[given].tolist(), strict=True)
        return found

    alone = keys(0, 1)
    assert len(set(alone.values())) == ROWS
    together = [keys(rank, world_size) for rank in range(world_size)]
    assert {row: key for part in together for row, key in part.items()} == alone
    assert keys(0, 1, step=4).items() < alone.items()


@pytest.mark.parametrize("window", [0, 7, 16])
def test_a_seek_equals_a_replay(manifest: Manifest, window: int) -> None:
    data = config(shuffle_window=window, lanes=4, global_batch_size=20)
    replayed = [rows.check(batch) for batch in rows.reader(manifest, data, 1, 3).batches(2)]
    for step in range(len(replayed) + 1):
        assert [rows.check(batch) for batch in rows.reader(manifest, data, 1, 3).batches(2, step)] == replayed[step:]


@pytest.mark.parametrize("window", [0, 16])
def test_epochs_follow_each_other(manifest: Manifest, window: int) -> None:
    reader = rows.reader(manifest, config(shuffle_window=window))
    one_by_one = [rows.check(batch) for epoch in (1, 2, 3) for batch in reader.batches(epoch)]
    batches = list(reader.batches(1, 2, epochs=4))
    steps = reader.steps_per_epoch
    assert [rows.check(batch) for batch in batches] == one_by_one[2:]
    assert [batch.position for batch in batches] == [(1 + n // steps, n % steps) for n in range(2, 3 * steps)]


def test_the_next_epoch_is_read_ahead(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything fits in the budget: when the first epoch is used up the second one is there already."""
    reader = rows.reader(manifest, config())
    batches = reader.batches(0, epochs=2)
    for _ in range(reader.steps_per_epoch):
        next(batches)
    deadline = time.monotonic() + 30
    while not (batches._prefetcher._jobs and batches._prefetcher._jobs[-1].batches):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    monkeypatch.setattr(Decoder, "__call__", lambda *_: pytest.fail("it is not there"))
    assert next(batches).position == (1, 0)
    batches.close()


def test_epochs_and_seeds_differ_and_evaluation_is_in_order(manifest: Manifest) -> None:
    data = config(lanes=1, global_batch_size=50)
    shuffled = [[rows.check(batch) for batch in rows.reader(manifest, data).batches(epoch)] for epoch in (0, 1)]
    assert shuffled[0] != shuffled[1]
    plain = [row for batch in rows.reader(manifest, data, shuffle=False).batches(0) for row in rows.check(batch)]
    assert plain == list(range(ROWS))


def test_a_small_budget_only_slows_down(manifest: Manifest) -> None:
    reader = rows.reader(manifest, config(prefetch_mib=1))
    reader._bytes_per_row = 10**6  # so that nothing fits
    assert rows.everything(reader.batches(0)) == Counter(range(ROWS))


def test_fewer_rows_than_lanes(tmp_path: Path) -> None:
    rows.write(tmp_path, {"a.parquet": 3}, 2)
    manifest = build_manifest(str(tmp_path), "train")
    for window in (0, 4):
        readers = [rows.reader(manifest, config(shuffle_window=window), rank, 4) for rank in range(4)]
        assert sum((rows.everything(reader.batches(0)) for reader in readers), Counter()) == Counter(range(3))


def test_no_sparse_feature(manifest: Manifest) -> None:
    dense = {name: feature for name, feature in rows.FEATURES.items() if name in ("number", "pair")}
    reader = Reader(manifest, config(), FeatureTransforms(dense, {}), rows.TASKS, 7, 0, 1)
    batches = list(reader.batches(0))
    assert batches[0].sparse is None
    assert sum(int(number) for batch in batches for number in batch.dense[:, 0]) == sum(range(ROWS))


def test_closing_stops_the_threads(manifest: Manifest) -> None:
    batches = rows.reader(manifest, config()).batches(0)
    next(batches)
    assert reader_threads()
    batches.close()
    assert not reader_threads()


def test_dropping_the_iterator_stops_the_threads(manifest: Manifest) -> None:
    batches = rows.reader(manifest, config()).batches(0)
    next(batches)
    del batches
    gc.collect()
    assert not reader_threads()


def test_a_consumer_that_dies_leaves_no_thread(manifest: Manifest) -> None:
    def consume() -> None:
        for _ in rows.reader(manifest, config()).batches(0):
            raise KeyError("consumer")

    with pytest.raises(KeyError):
        consume()
    gc.collect()
    assert not reader_threads()


def test_waiting_is_measured(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Decoder.__call__

    def slow(self: Decoder, number: int):
        time.sleep(0.02)
        return decode(self, number)

    monkeypatch.setattr(Decoder, "__call__", slow)
    reader = rows.reader(manifest, config(threads=1))
    started = time.perf_counter()
    list(reader.batches(0))
    assert 0.02 * len(manifest.row_groups) * 0.9 < reader.wait_seconds <= time.perf_counter() - started


def test_a_mistake_in_a_thread_reaches_the_consumer(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Decoder, number: int):
        raise UserError(f"row group {number} is wrong\nMend it.")

    monkeypatch.setattr(Decoder, "__call__", broken)
    with pytest.raises(UserError, match="is wrong"):
        next(rows.reader(manifest, config()).batches(0))
    assert not reader_threads()


def test_threads_of_torch_stay_as_they_are(manifest: Manifest) -> None:
    before, met = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        batches = rows.reader(manifest, config()).batches(0)
        next(batches)
        other = threading.Thread(target=lambda: met.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert [*met, torch.get_num_threads()] == [3, 3]
        batches.close()
    finally:
        torch.set_num_threads(before)


def test_more_workers_than_lanes(manifest: Manifest) -> None:
    with pytest.raises(UserError, match="9 workers"):
        rows.reader(manifest, config(), 0, 9)


def test_batches_outlive_the_reader(manifest: Manifest) -> None:
    """Memory is used again only when no batch looks at it any more."""
    batches = list(rows.reader(manifest, config()).batches(0))
    gc.collect()
    more = list(rows.reader(manifest, config()).batches(1))
    assert rows.everything(batches) == rows.everything(more) == Counter(range(ROWS))


def test_a_vanished_file_is_named(tmp_path: Path) -> None:
    rows.write(tmp_path, {"a.parquet": 50, "b.parquet": 50}, 40)
    manifest = build_manifest(str(tmp_path), "train")
    (tmp_path / "train" / "b.parquet").unlink()
    with pytest.raises(DataError, match=r"b\.parquet"):
        list(rows.reader(manifest, config()).batches(0))
