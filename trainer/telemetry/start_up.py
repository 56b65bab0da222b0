"""What rank 0 says before the first step: where the run is, what it trains on, how large it is, where tables are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embeddings.planning.plan_report import PlanReport
from models.describe import describe
from trainer.checkpoint.files import Position
from trainer.run.run_directory import RunDirectory
from trainer.telemetry.console import count
from trainer.telemetry.console import start_up_page as page

if TYPE_CHECKING:
    from trainer.train import Session


def start_up_page(session: Session, run: RunDirectory, start: Position | None) -> str:
    """At most 40 lines of 100 columns."""
    config, worker, reader = session.config, session.worker, session.reader
    model = session.built.model
    dense = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("tables."))
    sparse = sum(
        config.tables[name].num_embeddings * config.tables[name].embedding_dim for name in session.built.plan.tables
    )
    batch, rows = config.data.global_batch_size, reader.manifest.rows
    where = f"step {start.step:,} (epoch {start.epoch}, its step {start.epoch_step:,})" if start else "the beginning"
    files, steps, epochs = len(reader.manifest.files), reader.steps_per_epoch, config.training.epochs
    if config.data.follow:
        data, length = f"{rows:,} rows, {files:,} files, and new partitions as they come", f"{steps:,} steps so far"
    else:
        data, length = f"{rows:,} rows a pass, {files:,} files", f"{steps:,} steps an epoch, {epochs} epochs"
    facts = {
        "run": f"{run}  (from {where})",
        "workers": f"{worker.world_size} x {session.device.type}, {worker.local_world_size} on this host",
        "data": f"{config.data.root}  {data}",
        "batch": f"{batch:,} rows a step = {config.data.lanes} lanes x {batch // config.data.lanes:,}, {length}",
        "model": f"{config.model.top}: {count(dense)} dense parameters; {count(sparse)} in {len(config.tables)} tables",
        "tasks": ", ".join(f"{name} ({task.loss})" for name, task in config.tasks.items()),
        "tensorboard": f"tensorboard --logdir {run.tensorboard}",
        "logs": f"{run.logs / 'latest'}/rank_*.log",
    }
    structure = describe(config)
    return page(facts, f"{structure}\n\n{PlanReport(session.built.plan).text}")
