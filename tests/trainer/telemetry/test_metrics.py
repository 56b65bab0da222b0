import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fork_server import fork_server
from tests.trainer.telemetry import metrics_ranks
from trainer.telemetry.auc import auc
from trainer.telemetry.metrics import TaskMetrics

FORKSERVER = fork_server("tests.trainer.telemetry.metrics_ranks")


def batch(rows, tasks=2, seed=0):
    random = torch.Generator().manual_seed(seed)
    predictions = torch.rand(rows, tasks, generator=random)
    labels = (torch.rand(rows, tasks, generator=random) < predictions).float()
    weights = torch.randint(0, 3, (rows, tasks), generator=random).float()
    return predictions, labels, weights, (weights * predictions).double().sum(0)


def computed(batches, **arguments):
    metrics = TaskMetrics(["a", "b"], ["a", "b"], **arguments)
    for one in batches:
        metrics.update(*one)
    return metrics.compute()


def test_values_follow_their_definitions():
    p, y, w = np.array([0.1, 0.6, 0.8, 0.4]), np.array([0.0, 1, 1, 0]), np.array([1.0, 2, 0.5, 0])
    column = [torch.tensor(c, dtype=torch.float32)[:, None].expand(-1, 2) for c in (p, y, w)]
    metrics = TaskMetrics(["click", "watch"], ["click"], keep_all=True)
    metrics.update(*column, torch.tensor([7.0, 14.0]))
    click, watch = metrics.compute().values()
    base = np.average(y, weights=w)
    entropy = -base * np.log(base) - (1 - base) * np.log(1 - base)
    cross_entropy = np.average(-y * np.log(p) - (1 - y) * np.log(1 - p), weights=w)
    assert click == {
        "loss": pytest.approx(7 / 3.5),
        "rows": 3,
        "ne": pytest.approx(cross_entropy / entropy, rel=1e-6),
        "calibration": pytest.approx((w * p).sum() / (w * y).sum(), rel=1e-6),
        "auc": 1.0,
    }
    assert watch == {
        "loss": pytest.approx(14 / 3.5),
        "rows": 3,
        "mae": pytest.approx(np.average(abs(p - y), weights=w), rel=1e-6),
        "rmse": pytest.approx(np.sqrt(np.average((p - y) ** 2, weights=w)), rel=1e-6),
    }


def test_predicting_the_mean_label_has_entropy_and_calibration_one_and_no_area():
    labels = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    metrics = TaskMetrics(["a"], ["a"], keep_all=True)
    metrics.update(torch.full((4, 1), 0.25), labels, torch.ones(4, 1), torch.zeros(1))
    values = metrics.compute()["a"]
    assert (values["ne"], values["calibration"], values["auc"]) == (pytest.approx(1), pytest.approx(1), 0.5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=6), st.integers(1, 50), st.booleans())
def test_cuts_into_batches_and_blocks_change_nothing(sizes, block_rows, keep_all):
    batches = [batch(size, seed=i) for i, size in enumerate(sizes)] or [batch(0)]
    whole = [torch.cat(parts) for parts in list(zip(*batches, strict=True))[:3]]
    losses = torch.stack([one[3] for one in batches]).sum(0)
    expected = computed([(*whole, losses)], keep_all=True)
    found = computed(batches, keep_all=keep_all, block_rows=block_rows)
    for task in expected:
        for metric in found[task].keys() - (set() if keep_all else {"auc"}):
            assert found[task][metric] == pytest.approx(expected[task][metric], rel=1e-9, nan_ok=True), (task, metric)


def test_a_window_keeps_the_last_rows_for_auc_and_restarts_its_sums():
    first, second = batch(70, seed=1), batch(50, seed=2)
    metrics = TaskMetrics(["a", "b"], ["a", "b"], keep_all=False, block_rows=100)
    metrics.update(*first)
    metrics.restart()
    metrics.update(*second)
    found = metrics.compute()
    alone = computed([second], keep_all=True)
    last = [torch.cat((old[-50:], new)) for old, new in zip(first[:3], second[:3], strict=True)]
    for t, task in enumerate(("a", "b")):
        for metric in ("loss", "rows", "ne", "calibration"):
            assert found[task][metric] == pytest.approx(alone[task][metric], rel=1e-12)
        kept = last[2][:, t] > 0
        assert found[task]["auc"] == pytest.approx(auc(*(column[kept, t] for column in last)), abs=1e-12)


def test_rows_of_weight_zero_count_nowhere_whatever_the_model_says_of_them():
    rows = batch(40)
    padded = [
        torch.cat((column, torch.full((5, 2), fill))) for column, fill in zip(rows, (math.nan, 0, 0), strict=False)
    ]
    assert computed([(*padded, rows[3])], keep_all=True) == computed([rows], keep_all=True)


def test_what_is_undefined_is_nan():
    metrics = TaskMetrics(["a", "b"], ["a"], keep_all=True)
    nothing = torch.zeros(3, 2)
    metrics.update(nothing, nothing, nothing, torch.zeros(2))
    binary, regression = metrics.compute().values()
    assert binary.pop("rows") == regression.pop("rows") == 0
    assert all(math.isnan(v) for v in (*binary.values(), *regression.values()))


def run_ranks(world, folder):
    outputs = [folder / f"{rank}.json" for rank in range(world)]
    processes = [
        FORKSERVER.Process(target=metrics_ranks.main, args=(rank, world, str(folder / "store"), str(output)))
        for rank, output in enumerate(outputs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * world
    return [json.loads(output.read_text()) for output in outputs]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_equal_one_process(world, tmp_path):
    alone = metrics_ranks.measure(slice(0, metrics_ranks.ROWS))
    assert {"auc", "gauc", "ne"} <= alone["tasks"]["click"].keys()
    found = run_ranks(world, tmp_path)
    assert all(other == found[0] for other in found), "every rank has the same answer"
    for task, values in alone["tasks"].items():
        assert found[0]["tasks"][task] == pytest.approx(
            values, rel=1e-9
        )  # vector and scalar log differ in the last bit
    for name in ("load", "reliability", "positives"):
        np.testing.assert_allclose(found[0][name], alone[name], rtol=1e-12)
    np.testing.assert_allclose(found[0]["entropy"], alone["entropy"], rtol=1e-9)
