"""One worker's part in the `evaluate` command: the newest checkpoint of a run, measured on a part of the data.

And in the `compare` command: runs that are trained first, and neither trained nor measured twice.
"""

import gc
import json
from typing import Any

import torch.distributed as dist

from cluster.launch import Worker
from configs.errors import UserError
from configs.schema import Config
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.build import build, device_of
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.state import config_fingerprint, training_state
from trainer.evaluate import evaluate
from trainer.ranks.agreement import Agreement
from trainer.run.logs import redirect_to
from trainer.run.plans import read_pins
from trainer.run.run_directory import RunDirectory, write_json
from trainer.telemetry.console import eval_table
from trainer.train import open_reader, train

Tasks = dict[str, dict[str, float]]


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


def train_and_measure(config: Config, part: str, worker: Worker) -> Tasks | None:
    """Trains a run to its end and measures it; None when the driver was told to stop before.

    The metrics stay in the run's result.json, where they are found again after a crash or in a later comparison. What
    the run took of memory is free again afterwards.
    """
    run = RunDirectory(config.training.run_dir)
    facts = {"config": config_fingerprint(config), "part": part}
    known = Agreement().from_first(_known(run, facts) if worker.rank == 0 else None)
    if known is not None:
        return known
    if train(config, worker)["stopped"]:
        return None
    gc.collect()  # modules and pipelines refer to each other in circles
    tasks = measure(config, part, worker)["tasks"]
    if worker.rank == 0:
        write_json(run.result, facts | {"tasks": tasks})
    gc.collect()
    return tasks


def _known(run: RunDirectory, facts: dict[str, str]) -> Tasks | None:
    """The metrics of a run that was measured before, if it was this config on this part."""
    if not run.result.exists():
        return None
    result = json.loads(run.result.read_text())
    return result["tasks"] if {name: result[name] for name in facts} == facts else None
