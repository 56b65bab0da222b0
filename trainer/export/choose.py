"""Which saved state of a run is evaluated or exported: the newest, that of a step, or the best.

Checkpoints know no metric. The best is the one among those kept whose step has the best evaluation in metrics.jsonl:
by checkpoint.keep_best, or else by the mean AUC over the tasks that have one, else the lowest loss. So it needs an
evaluation at a step that was saved.
"""

from configs.errors import UserError
from configs.schema import CheckpointConfig
from trainer.checkpoint import marks
from trainer.checkpoint.attempts import Attempt
from trainer.checkpoint.chain import State
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.link_files import Link
from trainer.checkpoint.merge import merge
from trainer.checkpoint.there import states_by_step
from trainer.ranks.agreement import Agreement
from trainer.run.folder import Folder
from trainer.run.run_directory import RunDirectory
from trainer.telemetry.best import best_step, evaluations

LATEST, BEST = "latest", "best"


def choose_checkpoint(run: RunDirectory, config: CheckpointConfig, which: str = LATEST) -> Checkpoint:
    """As `choose_state`, as a checkpoint of its own: where the state is a chain, one is merged of it."""
    return merge(Folder(run.checkpoints), choose_state(run, config, which), Attempt(Folder(run.checkpoints), 0))


def choose_state(run: RunDirectory, config: CheckpointConfig, which: str = LATEST) -> State:
    """A saved state whose files pass their checksums.

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
    states = states_by_step(Folder(run.checkpoints))
    step = _best_step(run, config, states) if which == BEST else _step(run, which, states)
    state = states[step]
    damaged = [text for part in (state.base, *state.links) for text in _problems(part, state).values()]
    if damaged:
        raise UserError(f"{'; '.join(damaged)}\nGive --checkpoint another step, or restore the file.")
    return state


def choose_on_all_ranks(run: RunDirectory, config: CheckpointConfig, which: str) -> State:
    """As `choose_state`, by rank 0 for all. Raises UserError on all ranks."""
    ranks = Agreement()
    chosen: State | UserError | None = None
    if ranks.rank == 0:
        try:
            chosen = choose_state(run, config, which)
        except UserError as error:
            chosen = error
    chosen = ranks.from_first(chosen)
    if isinstance(chosen, UserError):
        raise chosen
    assert chosen is not None
    return chosen


def _problems(part: Checkpoint | Link, state: State) -> dict[str, str]:
    needed = part.needed(is_end=part is state.end) if isinstance(part, Link) else None
    return marks.problems(part.folder, part.files, needed)


def evaluated_at(run: RunDirectory, step: int) -> dict[str, float]:
    """Metrics of the evaluation at a step, by tag, such as auc/click; empty where there was none."""
    found = [line for line in evaluations(run.metrics) if line["step"] == step]
    if not found:
        return {}
    values = {tag: value for tag, value in found[-1].items() if isinstance(value, float) and "/" in tag}
    return {tag: value for tag, value in values.items() if not tag.startswith(("gate_", "speed/", "data/"))}


def _step(run: RunDirectory, which: str, states: dict[int, State]) -> int:
    if not which.isdecimal() or int(which) not in states:
        steps = ", ".join(map(str, sorted(states))) or "none"
        raise UserError(f"{run} has no complete checkpoint {which!r}\nThere are, by step: {steps}; or latest, best.")
    return int(which)


def _best_step(run: RunDirectory, config: CheckpointConfig, states: dict[int, State]) -> int:
    best = best_step(run.metrics, states, config.keep_best)
    if best is None:
        raise UserError(
            f"which checkpoint of {run} is best is not known: none of the steps that it keeps was evaluated\n"
            "Give --checkpoint latest or a step; train with checkpoint.keep_best, or with training.evaluate_every a "
            "multiple of checkpoint.every_steps."
        )
    return best
