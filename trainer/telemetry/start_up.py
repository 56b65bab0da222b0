"""What rank 0 says before the first step: where the run is, what it trains on, how large it is, where tables are."""

from typing import NamedTuple

from cluster.worker import Worker
from configs.schema import Config
from embeddings.planning.plan import Plan
from embeddings.planning.plan_report import PlanReport
from models.describe import describe
from trainer.run.position import Position
from trainer.run.run_directory import RunDirectory
from trainer.telemetry.console import count
from trainer.telemetry.console import start_up_page as page


class Sizes(NamedTuple):
    """What the config alone does not say."""

    rows: int  # of the training part, as of now
    files: int
    steps_per_epoch: int
    dense_parameters: int


def start_up_page(
    config: Config, run: RunDirectory, worker: Worker, plan: Plan, sizes: Sizes, start: Position | None
) -> str:
    """At most 40 lines of 100 columns. start: of the checkpoint; None at the beginning."""
    sparse = sum(config.tables[name].num_embeddings * config.tables[name].embedding_dim for name in plan.tables)
    batch, (rows, files, steps, dense), epochs = config.data.global_batch_size, sizes, config.training.epochs
    where = f"step {start.step:,} (epoch {start.epoch}, its step {start.epoch_step:,})" if start else "the beginning"
    if config.data.follow:
        data, length = f"{rows:,} rows, {files:,} files, and new partitions as they come", f"{steps:,} steps so far"
    else:
        data, length = f"{rows:,} rows a pass, {files:,} files", f"{steps:,} steps an epoch, {epochs} epochs"
    facts = {
        "run": f"{run}  (from {where})",
        "workers": f"{worker.world_size} x {worker.device}, {worker.local_world_size} on this host",
        "data": f"{config.data.root}  {data}",
        "batch": f"{batch:,} rows a step = {config.data.lanes} lanes x {batch // config.data.lanes:,}, {length}",
        "model": f"{config.model.top}: {count(dense)} dense parameters; {count(sparse)} in {len(config.tables)} tables",
        "tasks": ", ".join(f"{name} ({task.loss})" for name, task in config.tasks.items()),
        "tensorboard": f"tensorboard --logdir {run.tensorboard}",
        "logs": f"{run.logs / 'latest'}/rank_*.log",
    }
    structure = describe(config)
    return page(facts, f"{structure}\n\n{PlanReport(plan).text}")
