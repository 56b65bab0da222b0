"""Links between checkpoints, on real processes: what they lose, and that they change nothing."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from configs.schema import Config
from tests.trainer.test_train import assert_same_bits, final_state, small
from tests.trainer.workers import start_workers, train_on, wait
from trainer.checkpoint.finding import newest_by_marks
from trainer.run.folder import Folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("data") / "feed")


OPTIONS = (
    "training.max_steps=60",
    "training.log_every=7",
    "training.gradient_cosines_every=5",
    "training.task_balance=dwa",
    "tables.hour.sharding=data_parallel",
    "data.lanes=6",
    "data.global_batch_size=510",
)


def run_of(data: str, run_dir: Path, *overrides: str) -> Config:
    return small(data, run_dir, *OPTIONS, *overrides)


def records(run_dir: Path) -> list[dict]:
    """Lines of metrics.jsonl without what a clock, or the memory, says."""
    clocks = ("time", "speed/", "memory/", "checkpoint/")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(clocks)} for line in lines]


def saved_step(run_dir: Path) -> int:
    state = newest_by_marks(Folder(run_dir / "checkpoints"))
    return state.step if state else 0


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_run_with_links_that_is_killed_ends_bit_for_bit_as_one_that_saves_nothing(
    data: str, tmp_path: Path, world_size: int
) -> None:
    train_on(run_of(data, tmp_path / "plain", "checkpoint.every_steps=0"), world_size)
    config = run_of(data, tmp_path / "killed", "checkpoint.delta_every_steps=3", "checkpoint.every_steps=0")
    for attempt, wanted in enumerate((random.randint(8, 20), random.randint(30, 45))):
        workers = start_workers(config, world_size, resume=attempt > 0)
        while saved_step(tmp_path / "killed") < wanted:
            assert workers[0].is_alive()
            time.sleep(0.01)
        os.kill(random.choice(workers).pid or 0, signal.SIGKILL)
        assert None not in wait(workers)
    train_on(config, world_size, resume=True)
    assert_same_bits(final_state(tmp_path / "killed"), final_state(tmp_path / "plain"))
    assert records(tmp_path / "killed") == records(tmp_path / "plain")
