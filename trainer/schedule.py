"""How long a run is, and learning rates over it: pure functions, so that a resumed run needs no state for them."""

import math

from configs.errors import UserError
from configs.schema import Config, TrainingConfig
from trainer.run.position import Position


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


def last_step(config: Config, start: Position, steps_per_epoch: int) -> int | None:
    """Steps that the run will have done at its end; None if that is not known, as new partitions may come."""
    if config.data.follow:
        return config.training.max_steps
    left = (config.training.epochs - start.epoch) * steps_per_epoch - start.epoch_step
    planned = start.step + max(0, left)
    return min(planned, config.training.max_steps or planned)


def refuse_endless_warmup(config: Config, steps_per_epoch: int) -> None:
    """Checks what the config alone cannot show: the data says how many steps an epoch has.

    Raises:
        UserError: the learning rates would never get to what the config asks for.
    """
    warmup, last = config.training.warmup_steps, last_step(config, Position(0, 0, 0), steps_per_epoch)
    if last is not None and warmup >= last > 0:
        raise UserError(
            f"training.warmup_steps = {warmup:,}: the warm-up would not end before the run, which has {last:,} steps\n"
            "Lower training.warmup_steps, or raise training.epochs."
        )
