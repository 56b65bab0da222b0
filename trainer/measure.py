"""One worker's part in the `evaluate` command: the newest checkpoint of a run, measured on a part of the data."""

from typing import Any

import torch.distributed as dist

from cluster.launch import Worker
from configs.errors import UserError
from configs.schema import Config
from embeddings.features import FeatureTransforms
from trainer.build import build, device_of
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.state import training_state
from trainer.evaluate import evaluate
from trainer.run.logs import redirect_to
from trainer.run.plans import read_pins
from trainer.run.run_directory import RunDirectory
from trainer.telemetry.console import eval_table
from trainer.train import open_reader


def measure(config: Config, part: str, worker: Worker) -> dict[str, Any]:
    """{"text": a table, "tasks": {task: {metric: value}}}.

    Raises:
        UserError: the run has no complete checkpoint.
    """
    run = RunDirectory(config.training.run_dir)
    redirect_to(run.logs / "evaluate" / f"rank_{worker.rank}.log")
    device = device_of(worker)
    features = FeatureTransforms(config.features, config.tables)
    reader = open_reader(config, run, part, features, worker, shuffle=False)
    assert reader is not None, "jobs wrote the manifest of the part"
    built = build(config, device, worker.local_world_size, read_pins(run))
    checkpointer = Checkpointer(run.checkpoints, config.checkpoint, {})
    position = checkpointer.load(training_state(built.model, built.optimizer))
    if position is None:
        raise UserError(f"{run} has no complete checkpoint\ntrain it first, or give the directory of another run")
    record = evaluate(built, reader, config, device, position.step, position.epoch)
    dist.barrier()
    return {"text": eval_table(record), "tasks": record.tasks}
