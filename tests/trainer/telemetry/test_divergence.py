"""What is said of a loss that is no number, and that nothing is said of one that is."""

import math

import pytest

from configs.errors import UserError
from configs.schema import TrainingConfig
from trainer.telemetry.divergence import refuse_diverged_evaluation, refuse_divergence
from trainer.telemetry.memory import Memory
from trainer.telemetry.records import EvalRecord, StepRecord

TRAINING = TrainingConfig(run_dir="runs/x")


def record(objective: float, **losses: float) -> StepRecord:
    tasks = {name: {"loss": loss, "rows": 8.0 if name != "unlabelled" else 0.0} for name, loss in losses.items()}
    rates = {"sparse": 0.05, "dense": 1e-3}
    return StepRecord(1200, 5000, 0, 1.0, objective, tasks, 1.0, 1.0, 0.0, Memory(1, 1, 2), 1.0, learning_rates=rates)


def test_numbers_pass() -> None:
    refuse_divergence(record(-1e30, click=0.1, unlabelled=math.nan), TRAINING)


@pytest.mark.parametrize(
    ("objective", "losses", "words"),
    [
        (math.nan, {"click": math.nan, "like": 0.1, "unlabelled": math.nan}, "step 1,200: the loss of click is NaN"),
        (math.inf, {"click": math.inf, "like": math.nan}, "the loss of click, like is infinite"),
        (math.nan, {"click": 0.5}, "what the optimizer minimizes, but no task's loss, is NaN"),
    ],
)
def test_tasks_are_named(objective: float, losses: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        refuse_divergence(record(objective, **losses), TRAINING)
    assert "(sparse 0.05, dense 0.001), training.warmup_steps, training.clip_gradient_norm." in str(caught.value)


def test_only_what_is_not_in_use_is_advised() -> None:
    training = TrainingConfig(run_dir="x", warmup_steps=5, clip_gradient_norm=1, precision="bf16")
    with pytest.raises(UserError, match=r"dense 0\.001\), training\.precision=fp32\."):
        refuse_divergence(record(math.nan, click=math.nan), training)


def test_an_evaluation_that_is_not_a_number_is_refused() -> None:
    def evaluation(loss: float) -> EvalRecord:
        tasks = {"click": {"loss": loss, "rows": 8.0}, "like": {"loss": math.nan, "rows": 0.0}}
        return EvalRecord(1200, 0, loss, tasks, 8, 1.0)

    refuse_diverged_evaluation(evaluation(0.5))
    with pytest.raises(UserError, match="evaluation at step 1,200: the loss of click is NaN: training has diverged"):
        refuse_diverged_evaluation(evaluation(math.nan))
