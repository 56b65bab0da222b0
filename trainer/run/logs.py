"""Sends everything that a worker prints, C++ libraries and crashes included, into its rank's log file."""

import faulthandler
import logging
import os
import sys
from pathlib import Path

from cluster.worker import Worker
from trainer.ranks.agreement import Agreement
from trainer.run.run_directory import RunDirectory


def open_attempt(run: RunDirectory, worker: Worker) -> None:
    """Begins the log of this rank in this attempt of the run; all ranks call it together."""
    attempt = Agreement().from_first(run.start_attempt() if worker.rank == 0 else 0)
    redirect_to(run.rank_log(attempt, worker.rank))
    print(f"rank {worker.rank} of {worker.world_size}: process {os.getpid()} on {worker.node}, {worker.device}")  # noqa: T201
    if worker.rank == 0:
        worker.say(f"attempt {attempt}: logs in {run.attempt_logs(attempt)}")


def redirect_to(path: Path) -> None:
    """From now on standard output and error of this process end in `path`, line by line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.enable(sys.stderr)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("trainer").setLevel(logging.INFO)  # torchrec and fbgemm have thousands of lines at this level
