"""`compare`: trains several tops on the same data, each with several seeds, and shows them in one table.

Every top and seed is a run of its own below training.run_dir, and none is trained twice. The table is
`trainer.telemetry.comparison`'s.
"""

import gc
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs.checks import check
from configs.errors import RunStopped, UserError
from configs.schema import Config
from trainer.commands.evaluate import measure_on_worker
from trainer.commands.on_workers import call_on_workers
from trainer.commands.options import AsJson, ConfigFile, Overrides, read_config
from trainer.commands.screen import report, say
from trainer.commands.train import train_on_worker
from trainer.run.run_directory import RunDirectory, write_json

if TYPE_CHECKING:
    from cluster.worker import Worker

Tasks = dict[str, dict[str, float]]


def compare(
    config: ConfigFile,
    overrides: Overrides = None,
    tops: Annotated[
        str, typer.Option(help="Names of models/tops, with commas.")
    ] = "single_task,shared_bottom,moe,mmoe,ple",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every top.")] = 1,
    part: Annotated[str | None, typer.Option(help="Part to measure on; data.validation if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train several tops on the same data and show them in one table. Called again, it resumes where it was."""
    settings = read_config(config, overrides)
    text, values = compare_runs(settings, [top.strip() for top in tops.split(",") if top.strip()], seeds, part)
    report(text, values, as_json)


def compare_runs(config: Config, tops: list[str], seeds: int, part: str | None) -> tuple[str, dict[str, Any]]:
    """A table of every top, and its values."""
    from trainer.prepare import keep_part, prepare_run
    from trainer.run.paths import with_absolute_paths
    from trainer.run.versions import check_versions
    from trainer.telemetry.comparison import Result, comparison, write_dashboard

    check_versions()
    config = with_absolute_paths(config)
    part = part or config.data.validation
    variants = [variant(config, top, config.training.seed + seed) for top in tops for seed in range(seeds)]
    mistakes = [f"model.top={each.model.top}: {mistake.message}" for each in variants for mistake in check(each)]
    if mistakes:
        raise UserError("\n".join(dict.fromkeys(mistakes)))
    with ExitStack() as locks:
        for run_dir in (config.training.run_dir, *(each.training.run_dir for each in variants)):
            locks.enter_context(RunDirectory(run_dir).lock())
        for place, each in enumerate(variants):
            run = RunDirectory(each.training.run_dir)
            variants[place] = prepare_run(each, resume=run.is_used, overwrite=False, say=say)
            keep_part(run, each, part, say)
        folder = Path(config.training.run_dir)
        tasks = call_on_workers(train_all_on_worker, (variants, part), config, folder=folder, logs="*/logs/latest")
        if len(tasks) < len(variants):
            raise RunStopped(f"stopped in run {len(tasks) + 1} of {len(variants)}\nthe same command goes on from there")
        results = [Result(each, values) for each, values in zip(variants, tasks, strict=True)]
        write_dashboard(results, folder / "tensorboard")
    text, values = comparison(results, part)
    return f"{text}\nside by side: tensorboard --logdir {folder / 'tensorboard'} (the HPARAMS tab)", values


def variant(config: Config, top: str, seed: int) -> Config:
    """`config` with another top and seed, in a run directory of its own below training.run_dir."""
    run_dir = f"{config.training.run_dir}/{top}-seed{seed}"
    training = config.training.model_copy(update={"seed": seed, "run_dir": run_dir})
    return config.model_copy(update={"training": training, "model": config.model.model_copy(update={"top": top})})


def train_all_on_worker(argument: tuple[list[Config], str], worker: "Worker") -> list[Tasks]:
    """One run after the other on the same workers, until told to stop. The metrics of each."""
    configs, part = argument
    results = []
    for number, config in enumerate(configs, start=1):
        if worker.rank == 0:
            worker.say(f"run {number} of {len(configs)}: {config.training.run_dir}")
        tasks = _train_and_measure(config, part, worker)
        if tasks is None:
            break
        results.append(tasks)
    return results


def _train_and_measure(config: Config, part: str, worker: "Worker") -> Tasks | None:
    """Trains a run to its end and measures it; None when the driver was told to stop before.

    The metrics stay in the run's result.json, where they are found again after a crash or in a later comparison. What
    the run took of memory is free again afterwards.
    """
    from trainer.checkpoint.state import config_fingerprint
    from trainer.ranks.agreement import Agreement

    run = RunDirectory(config.training.run_dir)
    facts = {"config": config_fingerprint(config), "part": part}
    known = Agreement().from_first(_known(run, facts) if worker.rank == 0 else None)
    if known is not None:
        return known
    if train_on_worker(config, worker)["stopped"]:
        return None
    gc.collect()  # modules and pipelines refer to each other in circles
    tasks = measure_on_worker((config, part), worker)["tasks"]
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
