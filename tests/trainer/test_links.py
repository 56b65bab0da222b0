"""Links between checkpoints, on real processes: what they lose, and that they change nothing."""

import json
import os
import random
import re
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from configs.schema import Config
from tests.trainer.test_train import assert_same_bits, final_state, relative, small
from tests.trainer.workers import evaluate_on, losses, start_workers, train_on, wait
from trainer.checkpoint.chain import State
from trainer.checkpoint.there import newest_by_marks, there
from trainer.export.choose import choose_state
from trainer.run.folder import Folder
from trainer.run.run_directory import RunDirectory

OPTIONS = (
    "training.max_steps=60",
    "training.log_every=7",
    "training.gradient_cosines_every=5",
    "training.task_balance=dwa",
    "tables.hour.sharding=data_parallel",
    "data.lanes=6",
    "data.global_batch_size=510",
)
LONG = ("training.max_steps=120", "training.epochs=4")


def run_of(data: str, run_dir: Path, *overrides: str) -> Config:
    return small(data, run_dir, *OPTIONS, *overrides)


def records(run_dir: Path) -> list[dict]:
    """Lines of metrics.jsonl without what a clock, or the memory, says."""
    clocks = ("time", "speed/", "memory/", "checkpoint/", "run/")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(clocks)} for line in lines]


def newest(config: Config) -> State:
    state = newest_by_marks(Folder(f"{config.training.run_dir}/checkpoints"))
    assert state is not None
    return state


def wait_for(config: Config, workers: list[ForkServerProcess], step: int) -> None:
    """Until the workers have saved `step`, or a later one."""
    checkpoints = Folder(f"{config.training.run_dir}/checkpoints")
    while (state := newest_by_marks(checkpoints)) is None or state.step < step:
        assert all(worker.is_alive() for worker in workers)
        time.sleep(0.01)


def kill_at(config: Config, world_size: int, step: int, *, resume: bool = False) -> None:
    """Trains until `step` is saved; then one worker is killed, and the others end."""
    workers = start_workers(config, world_size, resume=resume)
    wait_for(config, workers, step)
    os.kill(random.choice(workers).pid or 0, signal.SIGKILL)
    assert None not in wait(workers)


@pytest.mark.parametrize(
    "world_size", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3]
)
def test_a_run_with_links_that_is_killed_ends_bit_for_bit_as_one_that_saves_nothing(
    data: str, tmp_path: Path, world_size: int
) -> None:
    """Links are written every three steps, and at whatever steps the clock says."""
    train_on(run_of(data, tmp_path / "plain", "checkpoint.every_steps=0"), world_size)
    links = ("checkpoint.delta_every_steps=3", "checkpoint.delta_every_s=0.05")
    config = run_of(data, tmp_path / "killed", *links, "checkpoint.every_steps=0")
    kill_at(config, world_size, random.randint(8, 20))
    kill_at(config, world_size, random.randint(30, 45), resume=True)
    train_on(config, world_size, resume=True)
    assert_same_bits(final_state(tmp_path / "killed"), final_state(tmp_path / "plain"))
    assert records(tmp_path / "killed") == records(tmp_path / "plain")


@pytest.mark.slow
def test_what_three_wrote_two_read_and_continue(data: str, tmp_path: Path) -> None:
    """Tables cut by rows lie on other workers, and so does the open window of steps."""
    options = ("training.task_balance=fixed", "model.dropout=0")
    train_on(run_of(data, tmp_path / "plain", *options, "checkpoint.every_steps=0"), 3)
    config = run_of(data, tmp_path / "resized", *options, "checkpoint.delta_every_steps=3", "checkpoint.every_steps=0")
    kill_at(config, 3, 25)
    assert newest(config).links, "a chain is read"
    train_on(config, 2, resume=True)
    found, expected = losses(tmp_path / "resized"), losses(tmp_path / "plain")
    assert found.keys() == expected.keys()
    assert max(relative(found[step], expected[step]) for step in expected) < 1e-5


@pytest.mark.slow
def test_a_storage_that_fails_for_a_while_costs_no_step(data: str, tmp_path: Path) -> None:
    """A folder that cannot be written, as a full disk: the run goes on, and saves when it can again."""
    train_on(run_of(data, tmp_path / "plain", "checkpoint.every_steps=0", *LONG), 2)
    config = run_of(data, tmp_path / "run", "checkpoint.delta_every_steps=2", "checkpoint.every_steps=0", *LONG)
    workers = start_workers(config, 2)
    deltas = tmp_path / "run" / "checkpoints" / "deltas"
    wait_for(config, workers, 6)
    deltas.rename(tmp_path / "aside")
    deltas.write_text("in the way")
    log = tmp_path / "run" / "logs" / "latest" / "rank_0.log"
    while "Training goes on, and the next save tries again" not in log.read_text():
        assert workers[0].is_alive()
        time.sleep(0.01)
    deltas.unlink()
    (tmp_path / "aside").rename(deltas)
    assert wait(workers) == [0, 0]
    assert re.search("step_0.* could not be (written|completed): rank 0: NotADirectoryError", log.read_text())
    assert_same_bits(final_state(tmp_path / "run"), final_state(tmp_path / "plain"))


@pytest.mark.slow
def test_workers_that_were_stopped_stand_down_when_others_have_taken_over(data: str, tmp_path: Path) -> None:
    """Two groups on one run directory, as where no file system has locks: one ends, and the run is whole."""
    train_on(run_of(data, tmp_path / "plain", "checkpoint.every_steps=0", *LONG), 2)
    config = run_of(data, tmp_path / "run", "checkpoint.delta_every_steps=2", "checkpoint.every_steps=0", *LONG)
    first = start_workers(config, 2)
    wait_for(config, first, 10)
    for worker in first:
        os.kill(worker.pid or 0, signal.SIGSTOP)
    second = start_workers(config, 2, resume=True)
    wait_for(config, second, newest(config).step + 4)
    for worker in first:
        os.kill(worker.pid or 0, signal.SIGCONT)
    assert wait(second) == [0, 0]
    assert 0 not in wait(first)
    log = (tmp_path / "run" / "logs" / "attempt_1" / "rank_0.log").read_text()
    assert "attempt 2 has taken over from attempt 1" in log
    assert_same_bits(final_state(tmp_path / "run"), final_state(tmp_path / "plain"))


def test_the_best_and_every_nth_checkpoint_stay(data: str, tmp_path: Path) -> None:
    options = ("training.evaluate_every=6", "checkpoint.keep_best=loss/click", "checkpoint.keep_every_steps=15")
    options += ("checkpoint.every_steps=5", "checkpoint.keep=2", "training.max_steps=40")
    config = run_of(data, tmp_path / "run", *options)
    train_on(config, 1)
    steps = {base.step for base in there(Folder(tmp_path / "run" / "checkpoints")).bases}
    best = choose_state(RunDirectory(tmp_path / "run"), config.checkpoint, "best").step
    evaluations = [line for line in records(tmp_path / "run") if line["kind"] == "eval"]
    assert best == min(evaluations, key=lambda line: line["loss/click"])["step"]
    assert steps == {15, 30, 36, 40, best}
    of_30 = next(line for line in evaluations if line["step"] == 30)
    measured = evaluate_on(config, 1, checkpoint="30")
    assert measured == {tag: of_30[tag] for tag in measured}
