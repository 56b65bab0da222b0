"""Learning rates over a run: a pure function of the step, so that a resumed run needs no state for it."""

import math

from configs.errors import UserError
from configs.schema import TrainingConfig


def learning_rates(training: TrainingConfig, step: int, last_step: int) -> dict[str, float]:
    """Of the step after `step` steps, by optimizer: sparse and dense."""
    factor = learning_rate_factor(training, step, last_step)
    return {
        "sparse": factor * training.sparse_optimizer.learning_rate,
        "dense": factor * training.dense_optimizer.learning_rate,
    }


def learning_rate_factor(training: TrainingConfig, step: int, last_step: int) -> float:
    """Factor of both learning rates at `step`, counted from 0: linear warm-up, then `training.decay` to `last_step`.

    The first step of a warm-up of n steps has factor 1/n; the last step of a decay has one step's rate left.
    """
    if step < training.warmup_steps:
        return (step + 1) / training.warmup_steps
    if training.decay == "constant":
        return 1.0
    left = (last_step - step) / max(1, last_step - training.warmup_steps)
    return left if training.decay == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def refuse_endless_warmup(training: TrainingConfig, last_step: int) -> None:
    """Checks what the config alone cannot show: the data says how many steps an epoch has.

    Raises:
        UserError: the learning rates would never get to what the config asks for.
    """
    if training.warmup_steps >= last_step > 0:
        raise UserError(
            f"training.warmup_steps = {training.warmup_steps:,}: the warm-up would not end before the run, which has "
            f"{last_step:,} steps\nLower training.warmup_steps, or raise training.epochs."
        )
