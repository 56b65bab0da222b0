"""Links of a model that trains on while they are written: each has the state of its step, whatever the copy's pace."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from configs.schema import CheckpointConfig
from embeddings.row_log import RowLog
from embeddings.tables import local_shards
from tests.embeddings.sharded_runs import TYPES, Run, config
from trainer.checkpoint import link_save
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.run.position import Position


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def step(run: Run, number: int) -> None:
    kjt, dense, labels = run.batch(number)
    run.optimizer.zero_grad()
    (run.model(kjt, dense) - labels).square().sum().backward()
    run.optimizer.step()


def values(run: Run) -> dict[str, list[Tensor]]:
    """Copies of what this process holds."""
    state = run.state().items()
    return {name: [shard.detach().clone() for shard, _ in local_shards(value)] for name, value in state}


def saved(folder: Path) -> dict[str, list[Tensor]]:
    """The newest state of the folder, in another model."""
    run = Run(config(TYPES))
    checkpointer = Checkpointer(folder, CheckpointConfig(), {})
    assert checkpointer.load(run.state()) is not None
    assert checkpointer.newest is not None
    assert checkpointer.newest.links
    return values(run)


def assert_equal(found: dict[str, list[Tensor]], expected: dict[str, list[Tensor]]) -> None:
    assert found.keys() == expected.keys()
    for name, shards in expected.items():
        assert all(torch.equal(one, other) for one, other in zip(found[name], shards, strict=True)), name


def test_a_row_is_not_trained_on_before_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is slow, and the next step looks up the same rows."""
    run = Run(config(TYPES))
    checkpointer = Checkpointer(tmp_path, CheckpointConfig(), {})
    checkpointer.follow(RowLog(run.model))
    checkpointer.save_link(run.state(), Position(0, 0, 0))
    step(run, 1)
    expected = values(run)
    copy = link_save.copy_rows

    def slow_copy(*arguments: dict) -> list:
        time.sleep(2)
        return copy(*arguments)

    monkeypatch.setattr(link_save, "copy_rows", slow_copy)
    stalled = checkpointer.save_link(run.state(), Position(1, 0, 1))
    assert stalled < 2, "training does not wait for the copy"
    step(run, 1)
    checkpointer.wait()
    assert any(isinstance(value, DTensor) for value in run.state().values())
    assert_equal(saved(tmp_path), expected)


def test_a_link_that_fails_is_made_good_by_the_next(tmp_path: Path) -> None:
    """Rows that it would have had are in the one that follows."""
    run, said = Run(config(TYPES)), []
    checkpointer = Checkpointer(tmp_path, CheckpointConfig(), {})
    checkpointer.say = said.append
    checkpointer.follow(RowLog(run.model))
    checkpointer.save_link(run.state(), Position(0, 0, 0))
    checkpointer.wait()
    (tmp_path / "deltas").write_text("in the way")
    for number in (1, 2):
        step(run, number)
        checkpointer.save_link(run.state(), Position(number, 0, number))
        checkpointer.wait()
    assert len(said) == 2
    (tmp_path / "deltas").unlink()
    step(run, 3)
    checkpointer.save_link(run.state(), Position(3, 0, 3))
    checkpointer.wait(must_succeed=True)
    assert_equal(saved(tmp_path), values(run))
