"""Ends a run whose loss is no number any more: every step after that one would be lost, and every checkpoint too.

Which steps those were is for `unsound`; numbers in a state that is saved are for `trainer.checkpoint.finite`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from configs.schema import TrainingConfig
from trainer.run.diverged import LOOK, SKIP, DivergedError
from trainer.telemetry.records import EvalRecord, Record, StepRecord


class First(NamedTuple):
    """The first step of a window whose loss was not a number, and the rows of the ranks that saw it.

    Attributes:
        rows: files and row groups. largest: the largest number in them, and where; "" where that is not known.
    """

    step: int
    rows: str
    largest: str = ""

    def __str__(self) -> str:
        largest = f"; the largest number is {self.largest}" if self.largest else ""
        return f"step {self.step:,}, with rows of {self.rows}{largest}"


def refuse_divergence(record: StepRecord, training: TrainingConfig, first: First | None = None) -> None:
    """Looks at a closed window, before it is saved. The record is the same on every rank, and so is the answer.

    Raises:
        DivergedError: the loss was NaN or infinite in a step of the window; says of which tasks, since which step.
    """
    if math.isfinite(record.objective):
        return
    whose = _whose(record) or "what the optimizer minimizes, but no task's loss,"
    since = f" since {first}" if first else ""
    raise DivergedError(
        f"step {record.step:,}: {whose} is {_what(record.objective)}{since}: training has diverged\n"
        f"--resume resumes at the newest checkpoint: with lower learning rates ({_shown(record.learning_rates)}), "
        f"{_more(training)}. {LOOK} {SKIP}"
    )


def refuse_diverged_evaluation(record: EvalRecord) -> None:
    """Looks at an evaluation before it is reported.

    Raises:
        DivergedError: the loss is NaN or infinite; says of which tasks.
    """
    if math.isfinite(record.loss):
        return
    raise DivergedError(
        f"evaluation at step {record.step:,}: {_whose(record)} is {_what(record.loss)}: training has diverged\n"
        f"Resume at an older checkpoint with lower learning rates. {LOOK}"
    )


def _whose(record: Record) -> str:
    broken = [name for name, values in record.tasks.items() if values["rows"] and not math.isfinite(values["loss"])]
    return f"the loss of {', '.join(broken)}" if broken else ""


def _what(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinite"


def _shown(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rate:g}" for name, rate in rates.items())


def _more(training: TrainingConfig) -> str:
    """What could help and is not in use."""
    ways = ["training.warmup_steps"] if not training.warmup_steps else []
    ways += ["training.clip_gradient_norm"] if training.clip_gradient_norm is None else []
    ways += ["training.precision=fp32"] if training.precision != "fp32" else []
    return ", ".join(ways) or "or other settings"
