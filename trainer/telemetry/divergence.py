"""Ends a run whose loss is no number any more: every step after that one would be lost, and every checkpoint too."""

import math
from collections.abc import Mapping

from configs.errors import UserError
from configs.schema import TrainingConfig
from trainer.telemetry.records import StepRecord


def refuse_divergence(record: StepRecord, training: TrainingConfig) -> None:
    """Looks at a closed window, before it is saved. The record is the same on every rank, and so is the answer.

    Raises:
        UserError: the loss was NaN or infinite in a step of the window; says of which tasks.
    """
    if math.isfinite(record.objective):
        return
    broken = [name for name, values in record.tasks.items() if values["rows"] and not math.isfinite(values["loss"])]
    whose = f"the loss of {', '.join(broken)}" if broken else "what the optimizer minimizes, but no task's loss,"
    what = "NaN" if math.isnan(record.objective) else "infinite"
    raise UserError(
        f"step {record.step:,}: {whose} is {what}: training has diverged\n"
        f"--resume goes on from the newest checkpoint: with lower learning rates ({_shown(record.learning_rates)}), "
        f"{_more(training)}. Look at labels and dense columns of extreme size too: `inspect` shows their ranges."
    )


def _shown(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rate:g}" for name, rate in rates.items())


def _more(training: TrainingConfig) -> str:
    """What could help and is not in use."""
    ways = ["training.warmup_steps"] if not training.warmup_steps else []
    ways += ["training.clip_gradient_norm"] if training.clip_gradient_norm is None else []
    ways += ["training.precision=fp32"] if training.precision == "bf16" else []
    return ", ".join(ways) or "or other settings"
