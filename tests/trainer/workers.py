"""Runs `trainer.train.train` on real processes with a gloo group, without Ray: quick, and one can kill them by pid.
The evaluation of a run's newest checkpoint too.

The processes are forked from a server that has imported torchrec once.
"""

import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from cluster.worker import Worker
from configs.load import load_config
from configs.schema import Config
from tests.fork_server import fork_server
from trainer.prepare import prepare_run

FEW_ROWS = (
    "data.global_batch_size=512",
    "data.shuffle_window=1024",
    "data.generate.train_rows=20000",
    "data.generate.validation_rows=2000",
    "data.generate.rows_per_file=3000",
    "data.generate.rows_per_row_group=1000",
    "training.deterministic=true",
)
"""Overrides that make the quickstart small, and two runs of it equal."""

# The last two, which a run imports when it comes to them, take another half second of each process.
FORKSERVER = fork_server("trainer.train", "torchrec", "pandas", "torch.utils.tensorboard")


def start_workers(config: Config, world_size: int, *, resume: bool = False) -> list[ForkServerProcess]:
    """Prepares the run directory as the `train` command does and starts the workers. Paths of `config` are absolute."""
    prepare_run(config, resume=resume, overwrite=False, say=lambda line: None)
    return _start(_train, config, world_size)


def _start(work: Callable[[Config, Worker], None], config: Config, world_size: int) -> list[ForkServerProcess]:
    store = tempfile.mktemp(prefix="store-")
    arguments = work, f"{config.training.run_dir}/config.yaml", store
    workers = [FORKSERVER.Process(target=_work, args=(*arguments, rank, world_size)) for rank in range(world_size)]
    for worker in workers:
        worker.start()
    return workers


def wait(workers: list[ForkServerProcess]) -> list[int | None]:
    """Exit codes; a worker that hangs is an error."""
    for worker in workers:
        worker.join(timeout=200)
    return [worker.exitcode for worker in workers]


def train_on(config: Config, world_size: int, *, resume: bool = False) -> None:
    """Trains to the end."""
    assert wait(start_workers(config, world_size, resume=resume)) == [0] * world_size, _log(config)


def evaluate_on(config: Config, world_size: int, checkpoint: str = "latest") -> dict[str, float]:
    """A checkpoint of a run on its validation part: METRIC/TASK, as in metrics.jsonl."""
    assert wait(_start(partial(_evaluate, checkpoint=checkpoint), config, world_size)) == [0] * world_size
    tasks = json.loads((Path(config.training.run_dir) / "logs" / "evaluated.json").read_text())
    return {f"{metric}/{task}": value for task, metrics in tasks.items() for metric, value in metrics.items()}


def call_on(work: Callable[[Config, Worker], None], config: Config, world_size: int) -> None:
    """Calls a function on the workers of a run directory that is prepared."""
    assert wait(_start(work, config, world_size)) == [0] * world_size, _log(config)


def _log(config: Config) -> str:
    return (Path(config.training.run_dir) / "logs/latest/rank_0.log").read_text()[-3000:]


def losses(run_dir: str | Path) -> dict[int, float]:
    """Step -> loss, from metrics.jsonl."""
    lines = (Path(run_dir) / "metrics.jsonl").read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {record["step"]: record["total/loss"] for record in records if record["kind"] == "train"}


def _work(work: Callable[[Config, Worker], None], config_path: str, store: str, rank: int, world_size: int) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    work(load_config(config_path), Worker(rank, world_size, rank, world_size, "localhost", "cpu", lambda line: None))
    dist.destroy_process_group()
    os._exit(0)  # fbgemm's threads sometimes abort a normal exit


def _train(config: Config, worker: Worker) -> None:
    from trainer.train import train

    train(config, worker)


def _evaluate(config: Config, worker: Worker, checkpoint: str) -> None:
    from trainer.commands.evaluate import measure_on_worker

    found = measure_on_worker((config, config.data.validation, config.training.run_dir, checkpoint), worker)
    if worker.rank == 0:
        (Path(config.training.run_dir) / "logs" / "evaluated.json").write_text(json.dumps(found["tasks"]))


def begin_on(config: Config, world_size: int, *, resume: bool = False) -> None:
    """Opens a run on so many workers and saves what it begins with, before its first step."""
    prepare_run(config, resume=resume, overwrite=False, say=lambda line: None)
    call_on(_begin, config, world_size)


def _begin(config: Config, worker: Worker) -> None:
    from trainer.run.logs import open_attempt
    from trainer.run.run_directory import RunDirectory
    from trainer.session import open_session

    run = RunDirectory(config.training.run_dir)
    open_attempt(run, worker)
    with open_session(config, run, worker) as session:
        session.save(session.start)
        session.checkpointer.wait()
