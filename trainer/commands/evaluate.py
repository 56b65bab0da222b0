"""`evaluate`: measures a checkpoint of a run on every row of a part, each once."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs.errors import UserError
from configs.load import load_config
from configs.schema import Config
from trainer.commands.on_workers import call_on_workers
from trainer.commands.options import AsJson, RunFolder
from trainer.commands.screen import report, say

if TYPE_CHECKING:
    from cluster.worker import Worker


def evaluate(
    run: RunFolder,
    part: Annotated[str | None, typer.Option(help="Sub-folder of data.root; data.validation if left out.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="In place of launch.workers.")] = None,
    checkpoint: Annotated[str, typer.Option(help="latest, best (by the run's evaluations), or a step.")] = "latest",
    as_json: AsJson = False,
) -> None:
    """Measure a checkpoint of a run on every row of a part, each once."""
    text, values = evaluate_run(run, part=part, workers=workers, checkpoint=checkpoint)
    report(text, values, as_json)


def evaluate_run(
    run_dir: Path, *, part: str | None, workers: int | None, checkpoint: str = "latest"
) -> tuple[str, dict[str, Any]]:
    """A table of metrics and its values."""
    from trainer.prepare import keep_part
    from trainer.run.run_directory import open_run
    from trainer.run.versions import check_versions

    check_versions()
    run = open_run(run_dir)
    config = load_config(run.config)
    training = config.training.model_copy(update={"run_dir": str(run)})  # it may have moved
    config = config.model_copy(update={"training": training})
    if workers is not None:
        config = config.model_copy(update={"launch": config.launch.model_copy(update={"workers": workers})})
    part = part or config.data.validation
    if folder := _elsewhere(run.path):
        say(f"{run} cannot be written to: logs are in {folder}")
    else:
        keep_part(run, config, part, say)
    folder = folder or run.path
    measured = (config, part, str(folder), checkpoint)
    result = call_on_workers(measure_on_worker, measured, config, folder=folder, logs="logs/evaluate")
    return result["text"], {"tasks": result["tasks"]}


def _elsewhere(run: Path) -> Path | None:
    """A folder for the logs of a run that is on a read-only file system, or another user's."""
    return None if os.access(run, os.W_OK) else Path(tempfile.mkdtemp(prefix="multigate-evaluate-"))


def measure_on_worker(argument: tuple[Config, str, str, str], worker: "Worker") -> dict[str, Any]:
    """{"text": a table, "tasks": {task: {metric: value}}}, of a config on a part, with logs below a
    folder, of the checkpoint that `choose_state` takes.

    Raises:
        UserError: the run has no complete checkpoint.
    """
    import torch.distributed as dist

    from embeddings.features.feature_transforms import FeatureTransforms
    from trainer.build import build, device_of
    from trainer.checkpoint.checkpointer import Checkpointer
    from trainer.checkpoint.state import may_be_undefined, training_state
    from trainer.evaluate import evaluate as pass_over
    from trainer.export.choose import LATEST, choose_on_all_ranks
    from trainer.pulse import Pulse
    from trainer.run.formulations import read_formulations
    from trainer.run.logs import redirect_to
    from trainer.run.plans import read_pins
    from trainer.run.run_directory import RunDirectory
    from trainer.run.vocabularies import features_of
    from trainer.session import open_reader
    from trainer.telemetry.console import eval_table

    config, part, logs, which = argument
    run = RunDirectory(config.training.run_dir)
    redirect_to(Path(logs) / "logs" / "evaluate" / f"rank_{worker.rank}.log")
    device = device_of(worker)
    features = FeatureTransforms(features_of(run, config), config.tables)
    pulse, reader = Pulse(worker.beat), open_reader(config, run, part, features, worker, shuffle=False)
    if reader is None:
        raise UserError(
            f"{run} cannot be written to, and has no list of the files of {part}\n"
            "evaluate that part once where the run can be written to, or a copy of the run"
        )
    with pulse.working():
        built = build(config, device, worker.local_world_size, read_pins(run), read_formulations(run))
        checkpointer = Checkpointer(run.checkpoints, config.checkpoint, {})
        checkpointer.may_be_undefined, checkpointer.say = may_be_undefined(built.objective), worker.say
        state = training_state(built.model, built.optimizer)
        saved = None if which == LATEST else choose_on_all_ranks(run, config.checkpoint, which)
        position = checkpointer.load(state, saved)
    if position is None:
        raise UserError(f"{run} has no complete checkpoint\ntrain it first, or give the directory of another run")
    record = pass_over(built, reader, config, device, position.step, position.epoch, pulse)
    assert record is not None, "nobody stops it"
    dist.barrier()
    return {"text": eval_table(record), "tasks": record.tasks}
