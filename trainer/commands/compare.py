"""`compare`: trains several tops on the same data, each with several seeds, and shows them in one table.

Every top and seed is a run of its own below training.run_dir, and none is trained twice. The table is
`trainer.telemetry.comparison`'s.
"""

import gc
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs.checks import check
from configs.choice_checks import options_of
from configs.choices import available
from configs.errors import RunStopped, UserError
from configs.outputs import check_output
from configs.schema import Config
from trainer.commands.evaluate import measure_on_worker
from trainer.commands.on_workers import call_on_workers
from trainer.commands.options import AsJson, ConfigFile, Overrides, read_config
from trainer.commands.screen import report, say
from trainer.commands.train import train_on_worker
from trainer.run.run_directory import RunDirectory, read_json, write_json

if TYPE_CHECKING:
    from cluster.worker import Worker

COMPARISON = "comparison.json"
"""Marks the folder of a comparison: what lies in it may be replaced."""
Tasks = dict[str, dict[str, float]]


def compare(
    config: ConfigFile,
    overrides: Overrides = None,
    tops: Annotated[
        str, typer.Option(help="Names of models/tops, with commas.")
    ] = "single_task,shared_bottom,moe,mmoe,ple",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every top.")] = 1,
    part: Annotated[str | None, typer.Option(help="Part to measure on; data.validation if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete these runs and train them again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train several tops on the same data and show them in one table. Called again, it resumes where it was."""
    names = names_of(tops)
    text, values = compare_runs(read_config(config, overrides, names), names, seeds, part, overwrite=overwrite)
    report(text, values, as_json)


def names_of(tops: str) -> list[str]:
    """The names in --tops, each once. Whether there are such tops, `check` says."""
    names = [name.strip() for name in tops.split(",") if name.strip()]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice or not names:
        wrong = f"names {', '.join(twice)} more than once" if twice else "names no top"
        raise UserError(f"--tops {tops!r} {wrong}\ngive each top once, with commas: --tops mmoe,ple")
    return names


def compare_runs(
    config: Config, tops: list[str], seeds: int, part: str | None, *, overwrite: bool = False
) -> tuple[str, dict[str, Any]]:
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
    folder, runs = Path(config.training.run_dir), [RunDirectory(each.training.run_dir) for each in variants]
    check_output(folder, "training.run_dir", "folder", is_own=_is_comparison, overwrite=True)
    with ExitStack() as locks:
        locks.enter_context(RunDirectory(folder).lock())
        write_json(folder / COMPARISON, {"tops": tops, "seeds": seeds, "part": part})
        for run in runs:
            run.check(resume=not overwrite, overwrite=overwrite)
            locks.enter_context(run.lock())
        for place, (each, run) in enumerate(zip(variants, runs, strict=True)):
            variants[place] = prepare_run(each, resume=not overwrite, overwrite=overwrite, say=say, same=True)
            keep_part(run, each, part, say)
        tasks = call_on_workers(train_all_on_worker, (variants, part), config, folder=folder, logs="*/logs/latest")
        if len(tasks) < len(variants):
            raise RunStopped(f"stopped in run {len(tasks) + 1} of {len(variants)}\nthe same command continues there")
        results = [Result(each, values) for each, values in zip(variants, tasks, strict=True)]
        write_dashboard(results, folder / "tensorboard")
    text, values = comparison(results, part)
    return f"{text}\nside by side: tensorboard --logdir {folder / 'tensorboard'} (the HPARAMS tab)", values


def _is_comparison(folder: Path) -> bool:
    """Whether an earlier comparison made `folder`, or began to."""
    names = {path.name for path in folder.iterdir()}
    return COMPARISON in names or all(name.startswith(".") for name in names)


def variant(config: Config, top: str, seed: int) -> Config:
    """`config` with another top, without what is a setting of others, and seed, in a run directory of its own."""
    run_dir = f"{config.training.run_dir}/{top}-seed{seed}"
    training = config.training.model_copy(update={"seed": seed, "run_dir": run_dir})
    model = config.model.model_copy(update={"top": top, "options": options_of(top, config, available("models.tops"))})
    return config.model_copy(update={"training": training, "model": model})


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
    tasks = measure_on_worker((config, part, str(run), "latest"), worker)["tasks"]
    if worker.rank == 0:
        write_json(run.result, facts | {"tasks": tasks})
    gc.collect()
    return tasks


def _known(run: RunDirectory, facts: dict[str, str]) -> Tasks | None:
    """The metrics of a run that was measured before, if it was this config on this part."""
    result = read_json(run.result)
    if result is None or {name: result[name] for name in facts} != facts:
        return None
    return result["tasks"]
