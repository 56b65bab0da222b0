"""Several tops on the same data: which configs to train, and one table of the results. Training is `jobs`' business."""

import json
import math
import statistics
from dataclasses import dataclass
from typing import Any

from configs.schema import Config
from trainer.run.run_directory import RunDirectory
from trainer.telemetry.console import count, table

SHOWN = ("auc", "ne", "rmse")


@dataclass(frozen=True)
class Result:
    """One trained config and its metrics, {task: {metric: value}}."""

    config: Config
    tasks: dict[str, dict[str, float]]


def variant(config: Config, top: str, seed: int) -> Config:
    """`config` with another top and seed, in a run directory of its own below training.run_dir."""
    run_dir = f"{config.training.run_dir}/{top}-seed{seed}"
    training = config.training.model_copy(update={"seed": seed, "run_dir": run_dir})
    return config.model_copy(update={"training": training, "model": config.model.model_copy(update={"top": top})})


def comparison(results: list[Result], part: str) -> tuple[str, dict[str, Any]]:
    """A table with mean and standard deviation over seeds, and its values:

    {"part", "tops": {top: {"tasks": {task: {metric: {"mean", "std", "runs"}}}, "dense_parameters",
    "examples_per_second"}}}
    """
    tops: dict[str, Any] = {}
    for top in dict.fromkeys(result.config.model.top for result in results):
        mine = [result for result in results if result.config.model.top == top]
        tops[top] = {
            "tasks": {
                task: {metric: _spread([r.tasks[task][metric] for r in mine]) for metric in mine[0].tasks[task]}
                for task in mine[0].tasks
            },
            "dense_parameters": _dense_parameters(mine[0].config),
            "examples_per_second": statistics.median(_speeds(mine[0].config)),
        }
    return _text(tops, part), {"part": part, "tops": tops}


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "runs": values,
    }


def _dense_parameters(config: Config) -> int:
    from models.build import top_of

    return sum(parameter.numel() for parameter in top_of(config).parameters())


def _speeds(config: Config) -> list[float]:
    lines = map(json.loads, RunDirectory(config.training.run_dir).metrics.read_text().splitlines())
    return [line["speed/examples_per_second"] for line in lines if line["kind"] == "train"] or [math.nan]


def _text(tops: dict[str, Any], part: str) -> str:
    columns = [
        (task, metric)
        for task, metrics in next(iter(tops.values()))["tasks"].items()
        for metric in SHOWN
        if metric in metrics
    ]
    rows = [["top", *(f"{task} {metric}" for task, metric in columns), "parameters", "ex/s"]]
    for top, values in tops.items():
        spreads = [values["tasks"][task][metric] for task, metric in columns]
        cells = [f"{spread['mean']:.4f} ± {spread['std']:.4f}" for spread in spreads]
        rows.append([top, *cells, count(values["dense_parameters"]), count(values["examples_per_second"])])
    return "\n".join([f"on {part}, mean ± standard deviation over seeds", *table(rows)])
