"""Checkpoints of several real processes: resharding, failures that all ranks hear of, and SIGKILL at any moment."""

import json
import os
import random
import signal
import time

import pytest

from configs.schema import CheckpointConfig
from tests.trainer.checkpoint import checkpoint_ranks as ranks
from tests.trainer.checkpoint.whole_tensors import read_tensors
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.files import find, problems
from trainer.run.folder import Folder


@pytest.fixture(scope="module")
def saved_by_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    ranks.run(2, ranks.save_steps, str(folder), [1, 2, 3, 4])
    return folder


@pytest.mark.parametrize("world", [1, 2, 3])
def test_two_ranks_save_and_any_number_loads(saved_by_two, world):
    assert ranks.run(world, ranks.load_newest, str(saved_by_two)) == [[4, []]] * world


def test_a_process_without_a_group_reads_whole_tensors(saved_by_two):
    newest = find(Folder(saved_by_two))[0][0]
    assert newest.world_size == 2
    assert len(newest.files) == 3
    assert ranks.differences({**read_tensors(newest), **newest.extra}, 4) == []
    assert list(read_tensors(newest, lambda name: name.startswith("optim/"))) == [
        "optim/alone/sum",
        "optim/dense/step",
        "optim/table/sum",
    ]


def test_only_the_newest_are_kept(saved_by_two):
    assert Folder(saved_by_two).names() == [f"step_00000000{step}" for step in (2, 3, 4)]


def test_more_ranks_save_than_load(tmp_path):
    ranks.run(3, ranks.save_steps, str(tmp_path), [7])
    assert ranks.run(2, ranks.load_newest, str(tmp_path)) == [[7, []]] * 2


def test_what_does_not_fit_on_one_rank_is_told_to_all(saved_by_two):
    (message,) = set(ranks.run(2, ranks.load_what_does_not_fit, str(saved_by_two)))
    assert "model/dense is float32[7, 3] in the checkpoint but float32[8, 3] in this run" in message
    assert "optim/alone/sum is in the checkpoint but not in this run" in message


def test_a_failure_on_one_rank_is_the_same_error_on_all(tmp_path):
    told, after_failure, later = zip(*ranks.run(3, ranks.save_beyond_a_limit, str(tmp_path)), strict=True)
    assert len(set(told)) == 1
    assert "step 2 could not be written: rank 1: OSError" in told[0]
    assert "File too large" in told[0]
    assert after_failure == (1, 1, 1)
    assert later == (3, 3, 3)


def test_a_rank_that_dies_in_a_save_leaves_nobody_waiting(tmp_path):
    processes, _ = ranks.start(2, ranks.lose_a_rank, str(tmp_path))
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL]
    taken, told = json.loads((tmp_path / "told").read_text())
    assert taken < 20
    assert "step 2 could not be written" in told
    assert Checkpointer(tmp_path, CheckpointConfig(), {}).newest_complete().step == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process a file system of its own")
def test_hosts_without_a_common_folder_are_told_so_and_nothing_is_set_aside(tmp_path):
    ranks.run(2, ranks.save_steps, str(tmp_path), [4])
    loading, saving = zip(*ranks.run(2, ranks.on_hosts_that_share_nothing, str(tmp_path)), strict=True)
    assert len(set(loading)) == len(set(saving)) == 1
    assert "bin is missing; rank 0 finds nothing wrong with it\nmount the same folder on all hosts" in loading[0]
    assert "is the run directory shared by all hosts?" in saving[0]
    assert Checkpointer(tmp_path, CheckpointConfig(), {}).newest_complete().step == 4


def test_sigkill_at_any_moment_leaves_a_checkpoint_that_loads(tmp_path):
    clock, steps = random.Random(8), []
    for _ in range(5):
        processes, _ = ranks.start(2, ranks.save_for_ever, str(tmp_path), 40_000)
        deadline, known = time.monotonic() + 60, steps[-1] if steps else 0
        while not _newest_step(tmp_path) > known:
            assert time.monotonic() < deadline
            assert all(process.is_alive() for process in processes)
            time.sleep(0.01)
        time.sleep(clock.uniform(0, 0.4))
        for process in clock.sample(processes, 2):
            process.kill()
            time.sleep(clock.choice([0, 0.1]))
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes].count(-signal.SIGKILL) >= 1
        newest = Checkpointer(tmp_path, CheckpointConfig(), {}).newest_complete().base
        assert problems(newest) == {}
        assert ranks.differences({**read_tensors(newest), **newest.extra}, newest.step, 40_000) == []
        steps.append(newest.step)
    assert steps == sorted(set(steps)), "every start went further"


def _newest_step(folder):
    return max((int(path.parent.name[5:]) for path in folder.glob("*/complete.json")), default=0)
