"""Several tops trained on the same data: one table of the results, and one dashboard. Training is for others."""

import math
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema import Config
from trainer.run.run_directory import RunDirectory
from trainer.telemetry.console import count, table
from trainer.telemetry.metrics_file import read_metrics

SHOWN = ("auc", "gauc", "ne", "rmse")


@dataclass(frozen=True)
class Result:
    """One trained config and its metrics, {task: {metric: value}}."""

    config: Config
    tasks: dict[str, dict[str, float]]


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
            "examples_per_second": statistics.median(speed for result in mine for speed in _speeds(result.config)),
        }
    return _text(tops, part), {"part": part, "tops": tops}


def write_dashboard(results: list[Result], folder: Path) -> None:
    """Runs for TensorBoard's hparams tab: a row each, with top and seed beside the metrics of every task."""
    from trainer.telemetry.tensorboard import write_hparams

    shutil.rmtree(folder, ignore_errors=True)  # an earlier comparison's
    for result in results:
        settings = {"top": result.config.model.top, "seed": result.config.training.seed}
        settings["dense_parameters"] = _dense_parameters(result.config)
        metrics = {f"{m}/{task}": value for task, values in result.tasks.items() for m, value in values.items()}
        write_hparams(folder / Path(result.config.training.run_dir).name, settings, metrics)


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
    lines = read_metrics(RunDirectory(config.training.run_dir).metrics)
    return [line["speed/examples_per_second"] for line in lines if line["kind"] == "train"] or [math.nan]


def _text(tops: dict[str, Any], part: str) -> str:
    """A column a top, a row a task and metric: as wide as there are tops, however many the tasks."""
    first = next(iter(tops.values()))["tasks"]
    rows = [["", *tops]]
    for task, metrics in first.items():
        for metric in SHOWN:
            if metric in metrics:
                spreads = [values["tasks"][task][metric] for values in tops.values()]
                rows.append([f"{task} {metric}", *(f"{s['mean']:.4f} ± {s['std']:.4f}" for s in spreads)])
    for title, name in (("dense parameters", "dense_parameters"), ("examples/s", "examples_per_second")):
        rows.append([title, *(count(values[name]) for values in tops.values())])
    runs = len(next(iter(next(iter(first.values())).values()))["runs"])
    over = f"mean ± standard deviation over {runs} seeds" if runs > 1 else "one seed"
    return "\n".join([f"on {part}, {over}", *table(rows)])
