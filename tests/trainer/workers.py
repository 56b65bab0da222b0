"""Runs `trainer.train.train` on real processes with a gloo group, without Ray: quick, and one can kill them by pid."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from configs.load import load_config
from configs.schema import Config
from trainer.jobs import prepare_run

ROOT = Path(__file__).resolve().parents[2]


def start_workers(config: Config, world_size: int, *, resume: bool = False) -> list[subprocess.Popen]:
    """Prepares the run directory as the `train` command does and starts the workers. Paths of `config` are absolute."""
    prepare_run(config, resume=resume, overwrite=False, say=lambda line: None)
    store = tempfile.mktemp(prefix="store-")
    command = [sys.executable, "-m", "tests.trainer.workers", f"{config.training.run_dir}/config.yaml", store]
    return [subprocess.Popen([*command, str(rank), str(world_size)], cwd=ROOT) for rank in range(world_size)]


def train_on(config: Config, world_size: int, *, resume: bool = False) -> None:
    """Trains to the end."""
    workers = start_workers(config, world_size, resume=resume)
    codes = [worker.wait(timeout=250) for worker in workers]
    assert codes == [0] * world_size, (Path(config.training.run_dir) / "logs/latest/rank_0.log").read_text()[-3000:]


def losses(run_dir: str | Path) -> dict[int, float]:
    """Step -> loss, from metrics.jsonl."""
    records = map(json.loads, (Path(run_dir) / "metrics.jsonl").read_text().splitlines())
    return {record["step"]: record["total/loss"] for record in records if record["kind"] == "train"}


def _main() -> None:
    import torch.distributed as dist

    from cluster.launch import Worker
    from trainer.train import train

    config_path, store, rank, world_size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    train(load_config(config_path), Worker(rank, world_size, rank, world_size, "localhost", "cpu", lambda line: None))
    dist.destroy_process_group()


if __name__ == "__main__":
    _main()
