"""Which checkpoint of a run is exported: the newest, that of a step, or the best.

Checkpoints know no metric. The best is the one among those kept whose step has the best evaluation in metrics.jsonl:
the mean AUC over the tasks that have one, else the lowest loss. So it needs an evaluation at a step that was saved.
"""

import math
from typing import Any

from configs.errors import UserError
from configs.schema import CheckpointConfig
from trainer.checkpoint import files
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.files import Checkpoint
from trainer.run.folder import Folder
from trainer.run.run_directory import RunDirectory
from trainer.telemetry.metrics_file import read_metrics

LATEST, BEST = "latest", "best"


def choose_checkpoint(run: RunDirectory, config: CheckpointConfig, which: str = LATEST) -> Checkpoint:
    """A complete checkpoint whose files pass their checksums.

    Args:
        which: "latest", "best", or a step.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if which == LATEST:
        newest = Checkpointer(run.checkpoints, config, {}).newest_complete()
        if newest is None:
            raise UserError(f"{run} has no complete checkpoint\nTrain it first, or give the directory of another run.")
        return newest
    complete = {checkpoint.step: checkpoint for checkpoint in files.find(Folder(run.checkpoints))[0]}
    step = _best_step(run, complete) if which == BEST else _step(run, which, complete)
    damaged = files.problems(complete[step])
    if damaged:
        raise UserError(f"{'; '.join(damaged.values())}\nGive --checkpoint another step, or restore the file.")
    return complete[step]


def evaluated_at(run: RunDirectory, step: int) -> dict[str, float]:
    """Metrics of the evaluation at a step, by tag, such as auc/click; empty where there was none."""
    found = [line for line in _evaluations(run) if line["step"] == step]
    if not found:
        return {}
    values = {tag: value for tag, value in found[-1].items() if isinstance(value, float) and "/" in tag}
    return {tag: value for tag, value in values.items() if not tag.startswith(("gate_", "speed/", "data/"))}


def _evaluations(run: RunDirectory) -> list[dict[str, Any]]:
    lines = read_metrics(run.metrics) if run.metrics.is_file() else []
    return [line for line in lines if line.get("kind") == "eval"]


def _step(run: RunDirectory, which: str, complete: dict[int, Checkpoint]) -> int:
    if not which.isdecimal() or int(which) not in complete:
        steps = ", ".join(map(str, sorted(complete))) or "none"
        raise UserError(f"{run} has no complete checkpoint {which!r}\nThere are, by step: {steps}; or latest, best.")
    return int(which)


def _best_step(run: RunDirectory, complete: dict[int, Checkpoint]) -> int:
    scores = {line["step"]: _goodness(line) for line in _evaluations(run) if line["step"] in complete}
    known = {step: score for step, score in scores.items() if not math.isnan(score[1])}
    if not known:
        raise UserError(
            f"which checkpoint of {run} is best is not known: none of the steps that it keeps was evaluated\n"
            "Give --checkpoint latest or a step; train with training.evaluate_every a multiple of "
            "checkpoint.every_steps."
        )
    return max(known, key=lambda step: (*known[step], step))


def _goodness(line: dict[str, Any]) -> tuple[bool, float]:
    """(whether it is by AUC, larger is better); NaN where nothing is known."""
    areas = [value for tag, value in line.items() if tag.startswith("auc/") and isinstance(value, float)]
    if areas:
        return True, sum(areas) / len(areas)
    loss = line.get("total/loss")
    return False, -loss if isinstance(loss, float) else math.nan
