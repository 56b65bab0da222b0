"""Which checkpoint of another run a run begins with: chosen once, by the driver, and kept in the run's config.

So workers that start again before the run has saved anything begin with the same weights, although the other run may
have gone on. Imports no torch, except to find the best one.
"""

from configs.errors import UserError
from configs.load import load_config
from configs.resume import with_chosen
from configs.schema import CheckpointConfig, Config, WarmStart
from trainer.checkpoint.files import Checkpoint, find
from trainer.run.folder import Folder
from trainer.run.run_directory import RunDirectory
from trainer.run.vocabularies import features_of
from trainer.warm_start.rows import refuse_other_rows


def with_source(config: Config, former: Config | None, *, has_saved: bool) -> Config:
    """`config` with the step of the checkpoint that it begins with; all checks that need no tensors.

    former: the config of the run that resumes. has_saved: whether that run has a checkpoint of its own, to resume from.

    Raises:
        UserError: there is no such checkpoint, or rows of a table would mean something else.
    """
    warm = config.training.warm_start
    if warm is None:
        return config
    if former is not None and former.training.warm_start is not None:
        warm = with_chosen(warm, former.training.warm_start)
    if not has_saved:
        run = _run_of(warm, config)
        warm = warm.model_copy(update={"checkpoint": str(_step(run, warm.checkpoint))})
        there = load_config(run.config)
        refuse_other_rows(warm, config, there.model_copy(update={"features": features_of(run, there)}))
    training = config.training.model_copy(update={"warm_start": warm})
    return config.model_copy(update={"training": training})


def checkpoint_of(warm: WarmStart) -> Checkpoint:
    """The checkpoint that was chosen.

    Raises:
        UserError: it is no longer there.
    """
    run = RunDirectory(warm.run)
    found = _complete(run)
    return found[_step(run, warm.checkpoint)]


def _run_of(warm: WarmStart, config: Config) -> RunDirectory:
    run = RunDirectory(warm.run)
    if run.path == RunDirectory(config.training.run_dir).path:
        raise UserError(
            f"training.warm_start.from is {run}, this run itself\n"
            "Give the new run another training.run_dir, or resume this one: --resume."
        )
    if not run.is_used:
        raise UserError(f"training.warm_start.from: {run} is not a run\nGive the run directory of a run.")
    return run


def _complete(run: RunDirectory) -> dict[int, Checkpoint]:
    return {checkpoint.step: checkpoint for checkpoint in find(Folder(run.checkpoints))[0]}


def _step(run: RunDirectory, which: str) -> int:
    steps = sorted(_complete(run))
    if which == "best":
        from trainer.export.choose import choose_checkpoint

        return choose_checkpoint(run, CheckpointConfig(), which).step
    if which == "latest" and steps:
        return steps[-1]
    if not which.isdecimal() or int(which) not in steps:
        there = ", ".join(map(str, steps)) or "none"
        raise UserError(
            f"training.warm_start: {run} has no complete checkpoint {which!r}; its steps are: {there}\n"
            "Set training.warm_start.checkpoint to one of them, or to latest or best."
        )
    return int(which)
