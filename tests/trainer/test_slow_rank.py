"""A rank that has more to do than the others is named at the run's end, and seen in its log lines."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.worker import Worker
from configs.schema import Config
from tests.trainer.test_train import small
from tests.trainer.workers import call_on
from trainer.prepare import prepare_run

SLOW, BURNT_S = 1, 0.2


def train_slowly(config: Config, worker: Worker) -> None:
    from trainer.train import train

    def burn(step: int) -> None:
        until = time.thread_time() + BURNT_S
        while worker.rank == SLOW and time.thread_time() < until:
            pass

    train(config, replace(worker, node=f"host-{worker.rank}", beat=burn))


@pytest.mark.slow
def test_the_rank_that_the_others_wait_for_is_named(tmp_path: Path) -> None:
    config = small(str(tmp_path / "data"), tmp_path / "run", "training.max_steps=8", "training.log_every=4")
    prepare_run(config, resume=False, overwrite=False, say=lambda line: None)
    call_on(train_slowly, config, 2)
    said = (tmp_path / "run" / "logs" / "latest" / "rank_0.log").read_text()
    assert f"rank {SLOW} on host-{SLOW} is slow: its own part of a step takes " in said
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["speed/slowest_rank"] > 1.3 for line in lines if line["kind"] == "train")
