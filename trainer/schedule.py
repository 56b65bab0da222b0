"""Learning rates over a run: a pure function of the step, so that a resumed run needs no state for it."""

import math

from configs.schema import TrainingConfig


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
