import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.telemetry.console import count, duration, eval_table, ratio, start_up_page, step_line
from trainer.telemetry.gates import GateUse
from trainer.telemetry.memory import Memory
from trainer.telemetry.records import EvalRecord, StepRecord


def step_record(**changes):
    values = {
        "step": 12_400,
        "total_steps": 50_000,
        "epoch": 0,
        "loss": 0.41229,
        "objective": 0.4,
        "tasks": {"click": {"ne": 0.8123}, "like": {"ne": 0.7709}},
        "examples_per_second": 1_921_000.0,
        "step_seconds": 0.1,
        "data_wait_share": 0.031,
        "memory": Memory(3.0, 40.0, 100.0, 61.2, 80.0),
        "eta_seconds": 4321.0,
    }
    return StepRecord(**(values | changes))


def test_the_step_line_is_the_designed_one():
    expected = (
        "step 12,400/50,000  loss 0.4123  ne click .812 like .771  1.92M ex/s  data 3%  mem 61.2/80 GiB  eta 1h12m"
    )
    assert step_line(step_record()) == expected


def test_the_step_line_of_other_runs():
    tasks = {f"t{i}": {"ne": 1.25} for i in range(6)} | {"watch": {"rmse": 3.5}}
    line = step_line(step_record(tasks=tasks, total_steps=None, eta_seconds=None, memory=Memory(1.0, 2.5, 7.75)))
    assert line.startswith("step 12,400  loss")
    assert "ne t0 1.250 t1 1.250 t2 1.250 t3 1.250  +3 tasks" in line
    assert line.endswith("mem 2.5/7.8 GiB")
    regression = step_line(step_record(tasks={"watch": {"rmse": 13.57}, "click": {"ne": math.nan}}))
    assert "ne click -  rmse watch 13.6" in regression


def test_an_evaluation_is_a_table():
    tasks = {
        "click": {"loss": 0.5, "rows": 20_000.0, "ne": 0.9, "auc": 0.73211, "calibration": 1.01},
        "watch": {"loss": 2.0, "rows": 1_000.0, "mae": 1.5, "rmse": math.nan},
    }
    lines = eval_table(EvalRecord(400, 1, 2.5, tasks, 20_000, 4.0)).splitlines()
    assert lines[0] == "evaluation at step 400  loss 2.5000  20,000 rows  4s  5.00k ex/s"
    assert lines[1].split() == ["task", "loss", "ne", "auc", "calibration", "mae", "rmse", "rows"]
    assert lines[2].split() == ["click", "0.50000", "0.90000", "0.73211", "1.01000", "-", "-", "20,000"]
    assert lines[3].split() == ["watch", "2.00000", "-", "-", "-", "1.50000", "-", "1,000"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_an_evaluation_names_features_that_went_without_ids():
    def lines(**shares: float) -> list[str]:
        record = EvalRecord(10, 1, 0.5, {"click": {"loss": 0.5}}, 8, 1.0, dropped_shares=shares)
        return eval_table(record).splitlines()

    assert (
        lines(user=0.123456, item=0.0, sound=0.0004)[-1] == "  IDs outside the table, dropped: user 12.35%  sound 0.04%"
    )
    assert not any("dropped" in line for line in lines(user=0.0))


def test_the_start_up_page_fits():
    plan = "\n".join(f"table_{i} " + "x" * 200 for i in range(60))
    lines = start_up_page({"run": "runs/a", "model": "one\ntwo"}, plan).splitlines()
    assert lines[0] == "run    runs/a"
    assert lines[1:3] == ["model  one", "model  two"]
    assert len(lines) == 40
    assert max(map(len, lines)) <= 100
    shown = sum(line.startswith("table_") for line in lines)
    assert lines[-1] == f"... {60 - shown} more lines in plan.txt"


def test_a_short_plan_is_whole():
    assert start_up_page({"run": "a"}, "one\ntwo").splitlines() == ["run  a", "", "one", "two"]
    assert start_up_page({"run": "a"}) == "run  a"


def test_all_is_plain_text():
    tasks = {"click": {"loss": 0.5, "ne": 0.9, "rows": 10.0}}
    text = step_line(step_record()) + eval_table(EvalRecord(400, 1, 2.5, tasks, 0, 0.0)) + start_up_page({"run": "a"})
    assert text.isascii()
    assert not set(text) & {"\r", "\x1b", "\t"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8123, ".812"),
        (0, ".000"),
        (1.0, "1.000"),
        (0.9999, "1.000"),
        (-0.5, "-.500"),
        (12.34, "12.3"),
        (math.nan, "-"),
    ],
)
def test_ratios(value, text):
    assert ratio(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.4, "0"),
        (834, "834"),
        (999.7, "1.00k"),
        (19_200, "19.2k"),
        (99_999, "100k"),
        (1_921_000, "1.92M"),
        (3.4e9, "3.40G"),
    ],
)
def test_counts(value, text):
    assert count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0s"), (59.6, "1m00s"), (245, "4m05s"), (4321, "1h12m"), (3600 * 76, "3d04h"), (math.inf, "-")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@given(st.floats(0, 1e12))
def test_counts_are_short_and_close(value):
    text = count(value)
    size = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1])
    shown = float(text[:-1]) * size if size else float(text)
    assert shown == pytest.approx(value, rel=0.006, abs=0.5)
    assert len(text) <= 5


def test_dead_experts_are_told_after_an_evaluation():
    loads = ((0.5, 0.5, 0.0, 0.0),)
    gates = {"gate": GateUse(("all",), loads, (0.5,), (2, 3)), "other": GateUse(("all",), ((0.5, 0.5),), (1.0,), ())}
    lines = eval_table(EvalRecord(10, 1, 0.5, {"click": {"loss": 0.5}}, 8, 1.0, gates)).splitlines()
    assert lines[-1] == ("  no gate uses expert 2, 3 of gate: model.gate_dropout and model.gate_noise work against it")
    assert "no gate uses" not in "".join(lines[:-1])
