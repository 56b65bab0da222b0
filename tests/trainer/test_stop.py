"""A run that is asked to stop, through whichever rank, has saved its newest step, and ends as if nobody had asked."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cluster.worker import Worker
from configs.schema import Config
from tests.trainer.test_links import OPTIONS, records
from tests.trainer.test_train import assert_same_bits, final_state, small
from tests.trainer.workers import call_on, train_on
from trainer.checkpoint.there import newest_by_marks
from trainer.prepare import prepare_run
from trainer.run.folder import Folder


def train_until(config: Config, worker: Worker, is_told: Callable[[list[int], int], bool]) -> None:
    """Trains; one rank is told to stop when `is_told` says so of the steps that it has told of by then."""
    from trainer.train import train

    beats: list[int] = []
    told = replace(worker, beat=beats.append, stops=lambda: is_told(beats, worker.rank))
    result = train(config, told)
    if worker.rank == 0:
        (Path(config.training.run_dir) / "result").write_text(json.dumps(result))


def stopped_at(config: Config, world_size: int, is_told: Callable[[list[int], int], bool]) -> int:
    """Trains until the rank is told; the step that is saved, which is the one that the run says."""
    prepare_run(config, resume=True, overwrite=False, say=lambda line: None)
    call_on(partial(train_until, is_told=is_told), config, world_size)
    run_dir = Path(config.training.run_dir)
    result, saved = json.loads((run_dir / "result").read_text()), newest_by_marks(Folder(run_dir / "checkpoints"))
    assert saved is not None
    assert (result["stopped"], result["step"]) == (True, saved.step)
    assert f"asked to stop: step {saved.step:,} is saved" in (run_dir / "logs/latest/rank_0.log").read_text()
    return saved.step


def after_step(beats: list[int], rank: int, *, step: int, of: int) -> bool:
    return rank == of and max(beats, default=0) >= step


def amid_evaluation(beats: list[int], rank: int, *, step: int, of: int) -> bool:
    """After two of its batches."""
    return rank == of and beats.count(step) >= 3


@pytest.mark.parametrize(
    "world_size", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3]
)
def test_it_stops_two_steps_later_whatever_is_logged_and_ends_bit_for_bit_the_same(
    data: str, tmp_path: Path, world_size: int
) -> None:
    options = (*OPTIONS, "checkpoint.every_steps=0", "training.max_steps=16")
    train_on(small(data, tmp_path / "undisturbed", *options), world_size)
    config, last_rank = small(data, tmp_path / "stopped", *options), world_size - 1
    assert stopped_at(config, world_size, partial(after_step, step=8, of=last_rank)) == 10
    train_on(config, world_size, resume=True)
    assert_same_bits(final_state(tmp_path / "stopped"), final_state(tmp_path / "undisturbed"))
    assert records(tmp_path / "stopped") == records(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2])
def test_amid_an_evaluation_it_stops_too_and_makes_it_when_it_resumes(
    data: str, tmp_path: Path, world_size: int
) -> None:
    options = ("training.max_steps=6", "training.log_every=100", "training.evaluate_every=4")
    config, last_rank = small(data, tmp_path / "run", *options), world_size - 1
    assert stopped_at(config, world_size, partial(amid_evaluation, step=4, of=last_rank)) == 4
    assert stopped_at(config, world_size, partial(amid_evaluation, step=6, of=last_rank)) == 6
    train_on(config, world_size, resume=True)
    found = [(line["kind"], line["step"]) for line in records(tmp_path / "run")]
    assert found == [("eval", 4), ("train", 6), ("eval", 6)]
