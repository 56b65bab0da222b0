"""Which of some steps was evaluated best, by metrics.jsonl. Checkpoints know no metric."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from configs.training_config import BEST_METRICS
from trainer.telemetry.metrics_file import read_metrics


def evaluations(metrics: Path) -> list[dict[str, Any]]:
    """The lines of all evaluations."""
    lines = read_metrics(metrics) if metrics.is_file() else []
    return [line for line in lines if line.get("kind") == "eval"]


def best_step(metrics: Path, steps: Collection[int], metric: str | None = None) -> int | None:
    """The newest of the best among `steps`; None where none of them has a value.

    metric: METRIC/TASK, such as auc/click; None: the mean AUC over the tasks that have one, else the lowest loss.
    """
    scores = {line["step"]: _goodness(line, metric) for line in evaluations(metrics) if line["step"] in steps}
    known = {step: score for step, score in scores.items() if not math.isnan(score[1])}
    return max(known, key=lambda step: (*known[step], step), default=None)


def _goodness(line: dict[str, Any], metric: str | None) -> tuple[bool, float]:
    """(whether it is by AUC, larger is better); NaN where nothing is known."""
    if metric is not None:
        value = line.get(metric)
        sign = 1 if BEST_METRICS[metric.split("/")[0]] else -1
        return True, sign * value if isinstance(value, float) else math.nan
    areas = [value for tag, value in line.items() if tag.startswith("auc/") and isinstance(value, float)]
    if areas:
        return True, sum(areas) / len(areas)
    loss = line.get("total/loss")
    return False, -loss if isinstance(loss, float) else math.nan
