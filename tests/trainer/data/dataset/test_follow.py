"""A data set that grows: new partitions are trained in order, each row once, and a restart goes on where it was."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.schema import DataConfig
from tests.trainer.data import rows
from trainer.data.dataset.follow import MARKER, complete_partitions, extend
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.partitions import NULL
from trainer.data.dataset.scan import build_manifest

ROWS = 70  # of a partition


def add(root: Path, day: int | str, complete: bool = True) -> None:
    """Partition `day`, with the rows from day * ROWS on."""
    folder = root / "train" / f"day={day}"
    folder.mkdir(parents=True)
    first = day * ROWS if isinstance(day, int) else 0
    rows.pq.write_table(rows.table(first, first + ROWS), folder / "a.parquet", row_group_size=20)
    if complete:
        (folder / MARKER).touch()


def config(**changes) -> DataConfig:
    settings = {"root": "", "global_batch_size": 16, "lanes": 4, "shuffle_window": 8, "order": "by_partition"}
    return DataConfig(**settings | changes)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    add(tmp_path, 1)
    return build_manifest(str(tmp_path), "train")


def test_a_partition_is_complete_with_its_marker_or_a_later_one(tmp_path: Path, manifest: Manifest) -> None:
    add(tmp_path, 2, complete=False)
    assert extend(manifest, 10).manifest == manifest
    add(tmp_path, 3, complete=False)
    assert extend(manifest, 10).manifest.partitions == ("day=1", "day=2")
    (tmp_path / "train" / "day=3" / MARKER).touch()
    grown = extend(manifest, 10).manifest
    assert grown.partitions == ("day=1", "day=2", "day=3")
    assert grown.starts_with(manifest)
    assert extend(grown, 10).manifest == grown


def test_what_comes_too_late_is_named(tmp_path: Path, manifest: Manifest) -> None:
    add(tmp_path, 2)
    add(tmp_path, 0)
    (tmp_path / "train" / "day=1" / "b.parquet").write_bytes((tmp_path / "train" / "day=1" / "a.parquet").read_bytes())
    grown, late, _ = extend(manifest, 10)
    assert grown.partitions == ("day=1", "day=2")
    assert late == ("day=0/a.parquet", "day=1/b.parquet")


def test_ten_comes_after_nine(tmp_path: Path, manifest: Manifest) -> None:
    for day in (8, 9, 10, 11):
        add(tmp_path, day)
    grown, late, _ = extend(manifest, 10)
    assert grown.partitions == ("day=1", "day=8", "day=9", "day=10", "day=11")
    assert not late
    add(tmp_path, 12)
    assert extend(grown, 10).manifest.partitions[-1] == "day=12"


def test_rows_without_a_value_do_not_end_the_stream(tmp_path: Path, manifest: Manifest) -> None:
    add(tmp_path, 2, complete=False)
    add(tmp_path, NULL)
    grown, late, skipped = extend(manifest, 10)
    assert grown == manifest  # they come after day 2, and still say nothing about it
    assert (f"day={NULL}", "without a value, for data.follow") in skipped
    add(tmp_path, 3)
    grown, late, _ = extend(manifest, 10)
    assert grown.partitions == ("day=1", "day=2", "day=3")
    assert not late
    assert build_manifest(str(tmp_path), "train").partitions[-1] == f"day={NULL}"


def test_a_manifest_in_another_order_keeps_it(tmp_path: Path, manifest: Manifest) -> None:
    """As of a run that ordered its partitions by text, rows without a value among them."""
    for day in (9, 10, 20, NULL):
        add(tmp_path, day)
    found = build_manifest(str(tmp_path), "train").files
    by_text = replace(manifest, files=tuple(sorted(found, key=lambda file: file.path)))
    assert by_text.partitions == ("day=1", "day=10", "day=20", "day=9", f"day={NULL}")
    add(tmp_path, 21)
    grown, late, _ = extend(by_text, 10)
    assert grown.partitions == (*by_text.partitions, "day=21")
    assert grown.starts_with(by_text)
    assert not late


@pytest.mark.parametrize("world_size", [1, 3])
def test_new_partitions_follow_the_old(tmp_path: Path, manifest: Manifest, world_size: int) -> None:
    readers = [rows.reader(manifest, config(follow=True), rank, world_size) for rank in range(world_size)]
    step, met = 0, []
    for day in range(1, 4):
        batches = [batch for reader in readers for batch in reader.batches(0, step)]
        met.append(rows.everything(batches))
        step = readers[0].steps_per_epoch
        assert [reader.ends_at(step) for reader in readers] == [True] * world_size
        add(tmp_path, day + 1)
        manifest = extend(manifest, 10).manifest
        for reader in readers:
            reader.extend(manifest)
    assert met == [Counter(range(day * ROWS, (day + 1) * ROWS)) for day in range(1, 4)]


def test_the_past_does_not_change_and_a_restart_goes_on(tmp_path: Path, manifest: Manifest) -> None:
    add(tmp_path, 2)
    add(tmp_path, 3)
    grown = extend(manifest, 10).manifest
    at_once = [rows.check(batch) for batch in rows.reader(grown, config()).batches(0)]
    reader = rows.reader(manifest, config())
    first = [rows.check(batch) for batch in reader.batches(0)]
    assert at_once[: len(first)] == first
    reader.extend(grown)
    for step in (0, 3, len(first), len(first) + 2):
        assert [rows.check(batch) for batch in reader.batches(0, step)] == at_once[step:]


def test_partitions_end_where_their_rows_do(tmp_path: Path, manifest: Manifest) -> None:
    add(tmp_path, 2)
    grown, steps = extend(manifest, 10).manifest, -(-ROWS // 16)
    followed, plain = rows.reader(grown, config(follow=True)), rows.reader(grown, config())
    assert [step for step in range(3 * steps) if followed.ends_at(step)] == [steps, 2 * steps]
    assert [step for step in range(3 * steps) if plain.ends_at(step)] == [2 * steps]


def test_a_manifest_only_grows_at_its_end(tmp_path: Path, manifest: Manifest) -> None:
    add(tmp_path, 0)
    with pytest.raises(AssertionError, match="only grows"):
        rows.reader(manifest, config()).extend(build_manifest(str(tmp_path), "train"))


def test_a_run_starts_on_complete_partitions_alone(tmp_path: Path) -> None:
    add(tmp_path, 1, complete=False)
    with pytest.raises(UserError, match="no complete partition") as caught:
        complete_partitions(str(tmp_path), "train", 10)
    assert MARKER in str(caught.value)
    add(tmp_path, 2, complete=False)
    assert complete_partitions(str(tmp_path), "train", 10).partitions == ("day=1",)
