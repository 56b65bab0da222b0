"""`train`: trains a config into its run directory. What a worker does is in `trainer.train`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs.choices import described
from configs.errors import RunStopped, UserError
from configs.schema import Config
from trainer.commands.on_workers import call_on_workers
from trainer.commands.options import ConfigFile, Overrides, read_config
from trainer.commands.screen import report, say

if TYPE_CHECKING:
    from cluster.worker import Worker

HELP = "\n\n".join(
    [
        "Train a config; writes its run directory.",
        "model.top is one of:",
        *(f"{name} - {text}" for name, text in described("models.tops").items()),
    ]
)


def train(
    config: ConfigFile,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the newest complete checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete what the run directory holds.")] = False,
    resume_or_start: Annotated[
        bool,
        typer.Option(
            "--resume-or-start",
            help="For a command that is repeated (RayJob, Slurm): resume, or start if nothing is saved yet; a run that "
            "has ended stays as it is, exit code 0; the place of a job that is lost with its host is taken.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, print the config, start nothing.")] = False,
) -> None:
    if resume_or_start and (resume or overwrite):
        raise UserError("--resume-or-start excludes --resume and --overwrite\npass one of them")
    settings, resume = read_config(config, overrides), resume or resume_or_start
    if dry_run:
        report(dry_run_of(settings, resume=resume, overwrite=overwrite))
    else:
        train_run(settings, resume=resume, overwrite=overwrite, repeats=resume_or_start)


def dry_run_of(config: Config, *, resume: bool, overwrite: bool) -> str:
    """Checks what `train_run` does before it starts anything; returns the resolved config as YAML."""
    from configs.load import dump_config
    from trainer.prepare import check_run
    from trainer.run.paths import with_absolute_paths
    from trainer.run.versions import check_versions

    check_versions()
    return dump_config(check_run(with_absolute_paths(config), resume=resume, overwrite=overwrite, say=say).config)


def train_run(config: Config, *, resume: bool, overwrite: bool, repeats: bool = False) -> None:
    """Prepares the run directory and trains on workers.

    repeats: whether to leave a run alone that has ended, and to take the place of a job that is lost.
    """
    from trainer.prepare import check_run, ended_at, prepare_run
    from trainer.run import history
    from trainer.run.paths import with_absolute_paths
    from trainer.run.run_directory import RunDirectory
    from trainer.run.versions import check_versions

    check_versions()
    config = with_absolute_paths(config)
    run = RunDirectory(config.training.run_dir)
    run.check(resume=resume, overwrite=overwrite)
    with run.lock(takes_over=repeats, say=say):
        if repeats and (step := ended_at(config)) is not None:
            check_run(config, resume=True, overwrite=False, say=say)
            say(f"{run} has ended at step {step:,}: nothing is left to do")
            return
        config = prepare_run(config, resume=resume, overwrite=overwrite, say=say)
        history.append(run.history, "launch")
        try:
            result = call_on_workers(train_on_worker, config, config, folder=run.path, logs="logs/latest")
        finally:
            history.append(run.history, "end")
    if result["stopped"]:
        raise RunStopped(f"stopped at step {result['step']:,}, which is saved\n--resume continues there")
    say(f"done: {run}")


def train_on_worker(config: Config, worker: "Worker") -> dict[str, Any]:
    from trainer import train as story

    return story.train(config, worker)
