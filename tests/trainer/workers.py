"""Runs `trainer.train.train` on real processes with a gloo group, without Ray: quick, and one can kill them by pid.

The processes are forked from a server that has imported torchrec once, which takes ten seconds.
"""

import json
import multiprocessing
import os
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from configs.load import load_config
from configs.schema import Config
from trainer.prepare import prepare_run

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["trainer.train", "torchrec"])


def start_workers(config: Config, world_size: int, *, resume: bool = False) -> list[ForkServerProcess]:
    """Prepares the run directory as the `train` command does and starts the workers. Paths of `config` are absolute."""
    prepare_run(config, resume=resume, overwrite=False, say=lambda line: None)
    store = tempfile.mktemp(prefix="store-")
    arguments = f"{config.training.run_dir}/config.yaml", store
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
    codes = wait(start_workers(config, world_size, resume=resume))
    assert codes == [0] * world_size, (Path(config.training.run_dir) / "logs/latest/rank_0.log").read_text()[-3000:]


def losses(run_dir: str | Path) -> dict[int, float]:
    """Step -> loss, from metrics.jsonl."""
    lines = (Path(run_dir) / "metrics.jsonl").read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {record["step"]: record["total/loss"] for record in records if record["kind"] == "train"}


def _work(config_path: str, store: str, rank: int, world_size: int) -> None:
    import torch
    import torch.distributed as dist

    from cluster.worker import Worker
    from trainer.train import train

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    train(load_config(config_path), Worker(rank, world_size, rank, world_size, "localhost", "cpu", lambda line: None))
    dist.destroy_process_group()
    os._exit(0)  # fbgemm's threads sometimes abort a normal exit
