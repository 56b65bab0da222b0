"""Reading processes are killed at random moments and go on in other numbers: no row is lost, none is met twice."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.fork_server import fork_server
from tests.trainer.data import rows
from tests.trainer.data.reading_job import read, records
from trainer.data.dataset.scan import build_manifest

CHECKPOINT_EVERY = 3  # steps: odd, so that no half of the steps is met by every restart
ROWS = 6000
FORKSERVER = fork_server("tests.trainer.data.reading_job")


def attempt(folder: Path, manifest: dict, data: dict, workers: int, step: int, steps: int, rng: random.Random) -> int:
    """Starts `workers` at `step` and kills them in the middle; returns the step of the last checkpoint.

    What they saw from there on is forgotten, as a trainer forgets it that goes back to its checkpoint.
    """
    logs = [folder / f"rank_{rank}" for rank in range(workers)]
    arguments = [(manifest, data, rank, workers, step, log) for rank, log in enumerate(logs)]
    processes = [FORKSERVER.Process(target=read, args=each, daemon=True) for each in arguments]
    for process in processes:
        process.start()
    until = step + rng.randrange(steps - step + CHECKPOINT_EVERY if step else steps // 2)  # the first never ends alone
    while any(process.is_alive() for process in processes) and min(map(last, logs), default=0) < until:
        time.sleep(0.001)
    time.sleep(rng.random() * 0.01)
    for process in rng.sample(processes, workers):
        if process.pid and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    done = min(map(last, logs)) + 1
    return steps if done == steps else max(step, done // CHECKPOINT_EVERY * CHECKPOINT_EVERY)


def last(log: Path) -> int:
    return max(records(log), default=-1)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_row_is_lost_or_repeated(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    files = {f"day={day}/{part}.parquet": ROWS // 6 for day in range(3) for part in range(2)}
    rows.write(tmp_path, files, rows_per_row_group=130)
    manifest = build_manifest(str(tmp_path), "train")
    data = {"root": "", "global_batch_size": 64, "lanes": 8, "shuffle_window": 100, "order": "by_partition"}
    settings = rows.DataConfig(**data)
    undisturbed = [Counter(rows.check(batch)) for batch in rows.reader(manifest, settings).batches(1)]
    met: dict[int, Counter[int]] = {}
    step, cuts = 0, 0
    while step < len(undisturbed):
        workers = rng.choice([1, 2, 3, 5])
        folder = tmp_path / f"attempt_{cuts}"
        folder.mkdir()
        reached = attempt(folder, manifest.to_json(), data, workers, step, len(undisturbed), rng)
        for number in range(step, reached):
            met[number] = sum((Counter(records(folder / f"rank_{rank}")[number]) for rank in range(workers)), Counter())
        step, cuts = reached, cuts + 1
        assert cuts < 100
    assert cuts > 1
    assert [met[number] for number in range(len(undisturbed))] == undisturbed
    assert sum(met.values(), Counter()) == Counter(range(ROWS))
