"""A run that follows its data: killed, restarted and fed piece by piece, it ends as if all had been there at once."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.schema import Config
from tests.trainer.test_train import assert_same_bits, final_state, small
from tests.trainer.workers import losses, start_workers, train_on, wait
from trainer.data.dataset.follow import MARKER
from trainer.data.generators._generate import generate

DAYS, STEPS_A_DAY = 4, 6  # 3,000 rows in steps of 512


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file a day, outside of any data set."""
    root = tmp_path_factory.mktemp("days")
    settings = small(str(root), root / "run").data.generate
    assert settings is not None
    generate(
        settings.model_copy(update={"train_rows": 3000 * DAYS, "options": {"partitions": DAYS}}),
        str(root / "feed"),
        "train",
        "validation",
    )
    return root


def add(days: Path, data: Path, day: int) -> None:
    """Writes day `day` of the data set: its file, then its marker."""
    folder = data / "train" / f"day={day}"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(sorted((days / "feed").glob("train/*/*.parquet"))[day], folder / "rows.parquet")
    (folder / MARKER).touch()


def follow(data: Path, run_dir: Path, *options: str) -> Config:
    fixed = (
        "data.order=by_partition",
        "data.follow=true",
        "data.follow_every_s=0.1",
        "training.log_every=4",
        "training.epochs=1",
    )
    return small(
        str(data),
        run_dir,
        *fixed,
        "training.task_balance=dwa",
        "data.validation=none",
        "checkpoint.every_steps=2",
        *options,
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def saved(run_dir: Path) -> int:
    complete = [json.loads(path.read_text()) for path in (run_dir / "checkpoints").glob("*/complete.json")]
    return max((facts["step"] for facts in complete), default=0)


def test_fed_day_by_day_and_killed_it_ends_the_same(days: Path, tmp_path: Path) -> None:
    for day in range(DAYS):
        add(days, tmp_path / "whole", day)
    train_on(follow(tmp_path / "whole", tmp_path / "at_once", "data.follow_patience_s=0.1"), 2)
    assert max(losses(tmp_path / "at_once")) == DAYS * STEPS_A_DAY

    data, run_dir = tmp_path / "fed", tmp_path / "run"
    add(days, data, 0)
    workers = start_workers(follow(data, run_dir), 2)
    until(lambda: saved(run_dir) == STEPS_A_DAY)
    add(days, data, 1)
    until(lambda: saved(run_dir) == 2 * STEPS_A_DAY)
    for worker in workers:  # while they wait
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
    wait(workers)

    add(days, data, 2)
    workers = start_workers(follow(data, run_dir), 2, resume=True)
    until(lambda: saved(run_dir) > 2 * STEPS_A_DAY)
    for worker in workers:  # while they train on a partition that the first start did not know
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
    wait(workers)

    add(days, data, 3)
    train_on(follow(data, run_dir, "data.follow_patience_s=0.1"), 2, resume=True)
    assert_same_bits(final_state(run_dir), final_state(tmp_path / "at_once"))
    train_on(follow(data, run_dir, "data.follow_patience_s=0.1"), 2, resume=True)
    assert saved(run_dir) == DAYS * STEPS_A_DAY


def test_a_step_limit_ends_it_and_late_files_are_named_once(days: Path, tmp_path: Path) -> None:
    data, run_dir = tmp_path / "data", tmp_path / "run"
    add(days, data, 1)
    workers = start_workers(follow(data, run_dir, f"training.max_steps={STEPS_A_DAY + 2}"), 2)
    until(lambda: saved(run_dir) == STEPS_A_DAY)
    add(days, data, 0)
    log = run_dir / "logs/latest/rank_0.log"
    until(lambda: "too late" in log.read_text())
    time.sleep(0.5)
    add(days, data, 2)
    assert wait(workers) == [0, 0]
    assert saved(run_dir) == STEPS_A_DAY + 2
    said = log.read_text().splitlines()
    assert [line.rpartition(": ")[2] for line in said if "too late" in line] == ["day=0/rows.parquet"]
    assert [line for line in said if line.startswith("waiting")] == ["waiting for partitions after day=1"]


def test_a_partition_that_does_not_fit_ends_the_run_on_all_ranks(days: Path, tmp_path: Path) -> None:
    data, run_dir = tmp_path / "data", tmp_path / "run"
    add(days, data, 0)
    workers = start_workers(follow(data, run_dir), 2)
    until(lambda: saved(run_dir) == STEPS_A_DAY)
    (data / "train" / "day=1").mkdir()
    (data / "train" / "day=1" / "rows.parquet").write_bytes(b"no Parquet at all")
    (data / "train" / "day=1" / MARKER).touch()
    assert 0 not in wait(workers)
    for rank in range(2):
        log = (run_dir / f"logs/latest/rank_{rank}.log").read_text()
        assert "day=1/rows.parquet does not end as a Parquet file" in log
