"""Rows that cannot be read, in a whole run: counted on all ranks together, named in its records, never silently."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs.schema import Config
from tests.trainer.test_train import small
from tests.trainer.workers import start_workers, train_on, wait

OPTIONS = ("data.order=sequential", "data.on_error=quarantine", "training.max_steps=10")


@pytest.fixture
def data(data: str, tmp_path: Path) -> Path:
    """20,000 training rows, row groups of 1,000; lanes of 2,500 rows alternate between two ranks. A copy."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def damage(path: Path, row_group: int) -> None:
    """Breaks a page of the first column that every config reads."""
    group = pq.read_metadata(path).row_group(row_group)
    columns = [group.column(place) for place in range(group.num_columns)]
    column = next(column for column in columns if column.path_in_schema == "user_id")
    content = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle : middle + 8] = bytes(8)
    path.write_bytes(content)


def config(data: Path, run_dir: Path, *options: str) -> Config:
    return small(str(data), run_dir, *OPTIONS, *options)


def training_files(data: Path) -> list[Path]:
    return sorted((data / "train").rglob("*.parquet"))


def fails_on_both_ranks(config: Config, message: str) -> None:
    run_dir = Path(config.training.run_dir)
    assert 0 not in wait(start_workers(config, 2))
    for rank in range(2):
        assert message in (run_dir / f"logs/latest/rank_{rank}.log").read_text()


def test_what_two_ranks_skip_counts_together(data: Path, tmp_path: Path) -> None:
    first, second, *_ = training_files(data)
    damage(first, 0)  # in lane 0, of rank 0
    damage(second, 0)  # in lane 1, of rank 1
    assert wait(start_workers(config(data, tmp_path / "run", "data.max_quarantined_fraction=0.1"), 2)) == [0, 0]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    assert train[-1]["data/quarantined_rows"] == 2000
    assert sum(line["rows/click"] for line in train) < 10 * 512
    for rank in range(2):
        assert (tmp_path / f"run/logs/latest/rank_{rank}.log").read_text().count("skipped: ") >= 1
    fails_on_both_ranks(
        config(data, tmp_path / "strict", "data.max_quarantined_fraction=0.08"),
        "2,000 of 20,000 rows cannot be read, more than data.max_quarantined_fraction=0.08",
    )


def test_an_evaluation_says_what_is_missing(data: Path, tmp_path: Path) -> None:
    (validation,) = sorted((data / "validation").rglob("*.parquet"))
    rows = pq.read_table(validation, columns=["click"])["click"]
    damage(validation, 1)
    train_on(config(data, tmp_path / "run", "data.max_quarantined_fraction=0.6"), 2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (record,) = [line for line in lines if line["kind"] == "eval"]
    assert record["data/quarantined_rows"] == 1000
    assert record["rows/click"] == 1000 - rows.slice(0, 1000).null_count
    assert "(1,000 could not be read)" in (tmp_path / "run/logs/latest/rank_0.log").read_text()
    events = EventAccumulator(str(tmp_path / "run/tensorboard/eval"))
    events.Reload()
    assert [event.value for event in events.Scalars("data/quarantined_rows")] == [1000]
    strict = config(data, tmp_path / "strict", "data.max_quarantined_fraction=0.2")
    fails_on_both_ranks(strict, "1,000 of 2,000 rows")


def test_on_error_fail_ends_all_ranks(data: Path, tmp_path: Path) -> None:
    damage(training_files(data)[0], 0)
    settings = small(str(shutil.copytree(data, tmp_path / "copy")), tmp_path / "run", "training.max_steps=10")
    assert 0 not in wait(start_workers(settings, 2))
    logs = [(tmp_path / f"run/logs/latest/rank_{rank}.log").read_text() for rank in range(2)]
    assert any("row group 0 cannot be read" in log for log in logs)
