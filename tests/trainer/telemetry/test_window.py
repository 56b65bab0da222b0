import json
import math
import time
from types import SimpleNamespace

import pytest
import torch

from configs.schema import TaskConfig
from trainer.telemetry.console import eval_table
from trainer.telemetry.records import to_json
from trainer.telemetry.tensorboard import TensorBoard
from trainer.telemetry.window import Evaluation, TrainingWindow

TASKS = {"click": TaskConfig(weight=2.0), "watch": TaskConfig(loss="mse"), "seen": TaskConfig(weight=0)}


def outputs(rows=8, seed=0, loss=0.5):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (rows, 3), generator=random).float()
    weights = torch.ones(rows, 3)
    weights[-2:] = 0  # padding
    return SimpleNamespace(
        loss=torch.tensor(loss),
        task_losses=torch.tensor([6.0, 12.0, math.nan]),
        predictions=torch.rand(rows, 3, generator=random),
        labels=labels,
        weights=weights,
        gates={"gate": torch.softmax(torch.randn(rows, 3, 4, generator=random), 2)},
        is_sound=torch.tensor(math.isfinite(loss)),
    )


def test_a_training_window_becomes_a_record():
    window = TrainingWindow(TASKS, ["click", "seen"], torch.device("cpu"), total_steps=100)
    window.add(outputs(seed=1, loss=0.5))
    window.add(outputs(seed=2, loss=1.5))
    record = window.record(
        10, 3, wait_seconds=0.0, learning_rates={"dense": 1e-3}, extra={"checkpoint/stall_seconds": 2.0}
    )
    assert (record.step, record.epoch, record.total_steps) == (10, 3, 100)
    assert record.loss == pytest.approx(2.0 * 1.0 + 1.0 * 2.0), "12 rows count; a task of weight 0 only watches"
    assert record.objective == pytest.approx(1.0)
    seconds = 2 * record.step_seconds
    assert record.examples_per_second * seconds == pytest.approx(12)
    assert record.eta_seconds == pytest.approx(90 * record.step_seconds)
    assert record.data_wait_share == 0
    values = record.scalars()
    assert values["gate_load/gate/click/expert_3"] == record.gates["gate"].load[0][3]
    assert values["checkpoint/stall_seconds"] == 2.0
    assert values["learning_rate/dense"] == 1e-3


def test_the_next_window_knows_only_its_own_steps_and_waits():
    window = TrainingWindow(TASKS, ["click", "seen"], torch.device("cpu"))
    window.add(outputs(seed=1))
    window.record(1, 0, wait_seconds=100.0, learning_rates={})
    window.restart(100.0)
    second = outputs(seed=2, loss=9.0)
    window.add(second)
    record = window.record(2, 0, wait_seconds=100.0, learning_rates={})
    assert record.objective == 9.0
    assert record.data_wait_share == 0, "the reader's total has not grown"
    assert record.eta_seconds is None
    assert record.tasks["watch"]["mae"] == pytest.approx(
        (second.predictions - second.labels)[:6, 1].abs().mean().item()
    )


def test_an_evaluation_becomes_a_record():
    evaluation = Evaluation(TASKS, ["click", "seen"], torch.device("cpu"))
    evaluation.add(outputs(seed=1), groups=torch.arange(8) % 2)
    evaluation.add(outputs(seed=2), groups=torch.arange(8) % 2)
    record = evaluation.close(7, 1)
    assert record.rows == 12
    assert record.tasks["click"]["rows"] == 12
    assert {"auc", "gauc", "ne", "calibration"} <= record.tasks["click"].keys()
    assert record.loss == pytest.approx(4.0)
    assert set(record.curves) == {"click", "seen"}
    assert record.scalars()["calibration_error/click"] == record.curves["click"].calibration_error


def test_paused_time_is_not_training():
    window = TrainingWindow(TASKS, ["click", "seen"], torch.device("cpu"))
    window.add(outputs())
    with window.paused():
        time.sleep(0.5)
    record = window.record(1, 0, wait_seconds=0.0, learning_rates={})
    assert 0 < record.step_seconds < 0.5


def test_an_evaluation_shows_its_first_row():
    evaluation = Evaluation(TASKS, ["click", "seen"], torch.device("cpu"))
    first = outputs(seed=1)
    first.weights[0, 1] = 0  # no label for watching
    evaluation.add(first)
    evaluation.add(outputs(seed=2))
    record = evaluation.close(5, 0)
    prediction, label = record.sample["click"]
    assert (prediction, label) == (first.predictions[0, 0].item(), first.labels[0, 0].item())
    assert math.isnan(record.sample["watch"][1])
    assert "its first row: click" in eval_table(record)


def test_a_diverged_model_is_recorded_and_drawn(tmp_path):
    broken = outputs()
    broken.predictions[:] = broken.loss = torch.tensor(math.nan)
    broken.gates["gate"][:] = math.nan
    window = TrainingWindow(TASKS, ["click", "seen"], torch.device("cpu"))
    evaluation = Evaluation(TASKS, ["click", "seen"], torch.device("cpu"))
    window.add(broken)
    evaluation.add(broken)
    records = [window.record(1, 0, 0.0, {}), evaluation.close(1, 0)]
    with TensorBoard(tmp_path) as board:
        for record in records:
            board.write(record)
            assert math.isnan(record.tasks["click"]["auc"])
            assert record.tasks["click"]["rows"] == 6
            line = json.loads(to_json(record))
            assert line["auc/click"] is None
            assert line["gate_load/gate/click/expert_0"] is None


def scalars(record):
    """Without what a clock or the memory says; NaN equals itself."""
    return {tag: repr(value) for tag, value in record.scalars().items() if not tag.startswith(("speed/", "memory/"))}


def test_a_window_that_is_saved_amid_its_steps_goes_on_bit_for_bit():
    steps = [outputs(rows=8 + seed, seed=seed, loss=0.1 * seed) for seed in range(6)]
    whole = TrainingWindow(TASKS, ["click", "seen"], torch.device("cpu"))
    parts = TrainingWindow(TASKS, ["click", "seen"], torch.device("cpu"))
    for step in steps[:2]:
        whole.add(step), parts.add(step)
    whole.restart(0.0), parts.restart(0.0)  # rows from before count for AUC
    for step in steps[2:]:
        saved = {name: value.clone() for name, value in parts.state().items()}
        parts = TrainingWindow(TASKS, ["click", "seen"], torch.device("cpu"))
        parts.load_state([saved], 0, 1)
        whole.add(step), parts.add(step)
    assert scalars(parts.record(6, 0, 0.0, {})) == scalars(whole.record(6, 0, 0.0, {}))


@pytest.mark.parametrize("now", [1, 2, 5])
def test_other_ranks_go_on_with_the_windows_of_three(now):
    before = []
    for rank in range(3):
        window = TrainingWindow(TASKS, ["click", "seen"], torch.device("cpu"))
        window.add(outputs(seed=rank))
        before.append(window.state())
    after = []
    for rank in range(now):
        window = TrainingWindow(TASKS, ["click", "seen"], torch.device("cpu"))
        window.load_state(before, rank, now)
        assert int(window.state()["steps"]) == 1
        after.append(window.state())
    for name in ("totals", "metrics/losses"):
        sums = [torch.stack([state[name] for state in states]).sum(0) for states in (before, after)]
        assert torch.allclose(*sums, equal_nan=True)
    rows = [
        sum(int(state["metrics/places"][0] - state["metrics/places"][1]) for state in states)
        for states in (before, after)
    ]
    assert rows[0] == rows[1] == 24, "none is lost, none counts twice"
