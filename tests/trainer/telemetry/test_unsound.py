"""Steps whose loss is no number are counted where they are left out, and told with the rows of the first."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.errors import UserError
from configs.schema import TrainingConfig
from trainer.run.position import Position
from trainer.telemetry.memory import Memory
from trainer.telemetry.records import StepRecord
from trainer.telemetry.unsound import UnsoundSteps

READER: Any = SimpleNamespace(origin=lambda epoch, step, ranks: f"batch {step} of epoch {epoch}, ranks {ranks}")


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


def test_a_run_stops_at_the_first_and_its_state_is_not_to_be_kept() -> None:
    unsound, _ = steps("stop")
    window(unsound, 1001, "....")
    assert not unsound.spoils_state()
    close(unsound, 1004)
    window(unsound, 1005, ".xx.")
    assert unsound.spoils_state()
    assert unsound.state == {}
    with pytest.raises(UserError, match=r"since step 1,006, with rows of batch 5 of epoch 2, ranks \[0\]"):
        close(unsound, 1008, torch.nan)


def test_steps_that_are_left_out_are_counted_through_a_resume() -> None:
    unsound, said = steps("skip")
    window(unsound, 1001, ".xx")
    assert not unsound.spoils_state()
    assert unsound.scalars() == {"steps/skipped": 2}
    resumed, _ = steps("skip", unsound.state)  # saved inside the window
    close(unsound, 1003)
    assert said == ["step 1,002 and 1 more left out: the loss was not finite; rows of batch 1 of epoch 2, ranks [0]"]
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
