"""Steps whose loss is no number are counted where they are left out, and told with the rows of the first."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.errors import UserError
from configs.schema import TrainingConfig
from trainer.data.reading.origin import Largest
from trainer.run.position import Position
from trainer.telemetry.memory import Memory
from trainer.telemetry.records import StepRecord
from trainer.telemetry.unsound import UnsoundSteps

READER: Any = SimpleNamespace(
    origin=lambda epoch, step, ranks: f"batch {step} of epoch {epoch}, ranks {ranks}",
    largest=lambda epoch, step: Largest(1e25, 3, 2, 1),
    where=lambda found: f"{found.value:g} in row {found.row}",
)


def steps(non_finite: str, saved: dict[str, Any] | None = None) -> tuple[UnsoundSteps, list[str]]:
    said: list[str] = []
    training = TrainingConfig.model_validate({"run_dir": "x", "non_finite": non_finite})
    return UnsoundSteps(training, torch.device("cpu"), saved or {}, said.append), said


def window(unsound: UnsoundSteps, first: int, sound: str) -> None:
    """A step for each letter; `x` is one without a loss."""
    for number, letter in enumerate(sound):
        unsound.add(first + number, torch.tensor(letter != "x"))


def close(unsound: UnsoundSteps, step: int, objective: float = 1.0) -> None:
    record = StepRecord(step, None, 2, 1.0, objective, {}, 1.0, 1.0, 0.0, Memory(1, 1, 2), None)
    unsound.close(record, Position(step, 2, step - 1000), READER)


def test_a_run_stops_and_says_since_when() -> None:
    unsound, _ = steps("stop")
    window(unsound, 1001, "....")
    close(unsound, 1004)
    window(unsound, 1005, ".xx.")
    assert unsound.state == {}
    with pytest.raises(UserError) as error:
        close(unsound, 1008, torch.nan)
    first = "step 1,006, with rows of batch 5 of epoch 2, ranks [0]; the largest number is 1e+25 in row 1"
    assert f"since {first}: training has diverged" in str(error.value)


def test_steps_that_are_left_out_are_counted_through_a_resume() -> None:
    unsound, said = steps("skip")
    window(unsound, 1001, ".xx")
    assert unsound.scalars() == {"steps/skipped": 2}
    resumed, _ = steps("skip", unsound.state)  # saved inside the window
    close(unsound, 1003)
    first = "step 1,002, with rows of batch 1 of epoch 2, ranks [0]; the largest number is 1e+25 in row 1"
    assert said == [f"left out, as the loss was not finite, 2 steps: {first}"]
    for one in (unsound, resumed):
        window(one, 1004, "x.")
        close(one, 1005)
        assert one.state == {"extra/skipped_steps": 3}
    unsound.close_run(1005)
    assert said[-1] == "3 of 1,005 steps were left out, as their loss was not finite"


def test_a_run_that_leaves_everything_out_ends() -> None:
    unsound, _ = steps("skip")
    window(unsound, 1001, "x" * 60 + "." + "x" * 60)
    close(unsound, 1121)
    window(unsound, 1122, "x" * 40)
    with pytest.raises(UserError, match="step 1,161: the loss was not finite in the last 100 steps"):
        close(unsound, 1161)
