"""Which checkpoint of another run a run begins with: chosen once, by the driver, and kept in the run's config.

So workers that start again before the run has saved anything begin with the same weights, although the other run may
have gone on. Imports no torch.
"""

from collections.abc import Mapping

from configs.errors import UserError
from configs.load import load_config
from configs.resume import with_chosen
from configs.schema import Config, WarmStart
from trainer.checkpoint.chain import State
from trainer.checkpoint.there import states_by_step
from trainer.run.folder import Folder
from trainer.run.run_directory import RunDirectory
from trainer.run.vocabularies import features_of
from trainer.telemetry.best import best_step
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
        step = _step(run, warm.checkpoint, states_by_step(Folder(run.checkpoints)))
        warm = warm.model_copy(update={"checkpoint": str(step)})
        there = load_config(run.config)
        refuse_other_rows(warm, config, there.model_copy(update={"features": features_of(run, there)}))
    training = config.training.model_copy(update={"warm_start": warm})
    return config.model_copy(update={"training": training})


def state_of(warm: WarmStart) -> State:
    """The state that was chosen.

    Raises:
        UserError: it is no longer there.
    """
    run = RunDirectory(warm.run)
    states = states_by_step(Folder(run.checkpoints))
    return states[_step(run, warm.checkpoint, states)]


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


def _step(run: RunDirectory, which: str, states: Mapping[int, State]) -> int:
    """latest and best are checkpoints of their own: a run that goes on soon drops what makes its links a state."""
    bases = [step for step, state in states.items() if not state.links]
    if which == "latest" and bases:
        return max(bases)
    if which == "best":
        best = best_step(run.metrics, bases, load_config(run.config).checkpoint.keep_best)
        if best is not None:
            return best
    if not which.isdecimal() or int(which) not in states:
        there = ", ".join(map(str, sorted(states))) or "none"
        raise UserError(
            f"training.warm_start: {run} has no complete checkpoint {which!r}; its steps are: {there}\n"
            "Set training.warm_start.checkpoint to one of them, or to latest, or to best where one was evaluated."
        )
    return int(which)
