"""A data set that grows: new partitions are trained in order, each row once, and a restart goes on where it was."""

import time
from collections import Counter
from pathlib import Path

import pytest

from configs.schema import DataConfig
from tests.trainer.data import rows
from trainer.data import reader as reader_module
from trainer.data.follow import MARKER, extend
from trainer.data.manifest import Manifest
from trainer.data.reader import ENDLESS
from trainer.data.scan import build_manifest

ROWS = 70  # of a partition


def add(root: Path, day: int, complete: bool = True) -> None:
    """Partition `day`, with the rows from day * ROWS on."""
    folder = root / "train" / f"day={day}"
    folder.mkdir(parents=True)
    rows.pq.write_table(rows.table(day * ROWS, (day + 1) * ROWS), folder / "a.parquet", row_group_size=20)
    if complete:
        (folder / MARKER).touch()


def config(**changes) -> DataConfig:
    settings = {"root": "", "global_batch_size": 16, "lanes": 4, "shuffle_window": 8, "order": "by_partition"}
    return DataConfig(**settings | changes)


@pytest.fixture(autouse=True)
def _ask_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_ASK_EVERY_S", 0.05)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    add(tmp_path, 1)
    return build_manifest(str(tmp_path), "train")


def test_a_partition_is_complete_with_its_marker_or_a_later_one(tmp_path: Path, manifest: Manifest) -> None:
    add(tmp_path, 2, complete=False)
    assert extend(manifest).manifest == manifest
    add(tmp_path, 3, complete=False)
    assert extend(manifest).manifest.partitions == ("day=1", "day=2")
    (tmp_path / "train" / "day=3" / MARKER).touch()
    grown = extend(manifest).manifest
    assert grown.partitions == ("day=1", "day=2", "day=3")
    assert grown.starts_with(manifest)
    assert extend(grown).manifest == grown


def test_what_comes_too_late_is_named(tmp_path: Path, manifest: Manifest) -> None:
    add(tmp_path, 2)
    add(tmp_path, 0)
    (tmp_path / "train" / "day=1" / "b.parquet").write_bytes((tmp_path / "train" / "day=1" / "a.parquet").read_bytes())
    grown, late = extend(manifest)
    assert grown.partitions == ("day=1", "day=2")
    assert late == ("day=0/a.parquet", "day=1/b.parquet")


@pytest.mark.parametrize("world_size", [1, 3])
def test_new_partitions_follow_the_old(tmp_path: Path, manifest: Manifest, world_size: int) -> None:
    known = [manifest]
    readers = [rows.reader(manifest, config(), rank, world_size, newer=lambda: known[-1]) for rank in range(world_size)]
    assert {reader.steps_per_epoch for reader in readers} == {ENDLESS}
    streams = [reader.batches(0) for reader in readers]
    steps = -(-ROWS // 16)
    for day in range(1, 4):
        met = Counter()
        for _ in range(steps):
            met += rows.everything(next(stream) for stream in streams)
        assert met == Counter(range(day * ROWS, (day + 1) * ROWS))
        add(tmp_path, day + 1)
        time.sleep(0.1)
        known.append(extend(known[-1]).manifest)
    for stream in streams:
        stream.close()


def test_the_past_does_not_change_and_a_restart_goes_on(tmp_path: Path, manifest: Manifest) -> None:
    add(tmp_path, 2)
    add(tmp_path, 3)
    grown = extend(manifest).manifest
    at_once = [rows.check(batch) for batch in rows.reader(grown, config()).batches(0)]
    first = [rows.check(batch) for batch in rows.reader(manifest, config()).batches(0)]
    assert at_once[: len(first)] == first
    for step in (0, 3, len(first), len(first) + 2):
        stream = rows.reader(manifest, config(), newer=lambda: grown).batches(0, step)
        assert [rows.check(next(stream)) for _ in at_once[step:]] == at_once[step:]
        stream.close()


def test_waiting_can_be_stopped(manifest: Manifest) -> None:
    stream = rows.reader(manifest, config(), newer=lambda: None).batches(0, -(-ROWS // 16))
    time.sleep(0.2)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 2


def test_a_failure_to_look_is_raised(manifest: Manifest) -> None:
    def broken() -> Manifest:
        raise OSError("the run directory is gone")

    stream = rows.reader(manifest, config(), newer=broken).batches(0, -(-ROWS // 16))
    with pytest.raises(OSError, match="is gone"):
        next(stream)
