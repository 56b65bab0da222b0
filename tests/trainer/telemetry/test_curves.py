import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.telemetry.curves import THRESHOLDS, task_curves


def rows(count, seed):
    random = torch.Generator().manual_seed(seed)
    predictions = torch.sigmoid(3 * torch.randn(count, generator=random) - 2)
    labels = (torch.rand(count, generator=random) < predictions).float()
    return predictions, labels, torch.rand(count, generator=random) + 0.1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(0, 1000))
def test_precision_and_recall_count_what_is_at_or_above_a_threshold(count, seed):
    predictions, labels, weights = rows(count, seed)
    curves = task_curves(predictions, labels, weights)
    p, y, w = (column.double().numpy() for column in (predictions, labels, weights))
    for i in range(THRESHOLDS):
        above = np.floor(p * (THRESHOLDS - 1)) >= i
        assert curves.true_positives[i] == pytest.approx((w * y)[above].sum(), abs=1e-9)
        assert curves.false_positives[i] == pytest.approx((w * (1 - y))[above].sum(), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(0, 1000))
def test_reliability_keeps_the_means_of_all_rows(count, seed):
    predictions, labels, weights = rows(count, seed)
    points = task_curves(predictions, labels, weights).reliability
    assert sum(point.share for point in points) == pytest.approx(1)
    for name, column in (("prediction", predictions), ("label", labels)):
        mean = sum(point.share * getattr(point, name) for point in points)
        assert mean == pytest.approx(np.average(column.double(), weights=weights.double()))
    assert [point.prediction for point in points] == sorted(point.prediction for point in points)


def test_rare_positives_get_many_points():
    predictions = torch.logspace(-4, -1, 1000)
    assert len(task_curves(predictions, torch.zeros(1000), torch.ones(1000)).reliability) > 10


def test_calibration_error_of_known_rows():
    predictions = torch.tensor([0.2, 0.2, 0.2, 0.2, 0.8])
    labels, weights = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, 1.0, 4.0])
    curves = task_curves(predictions, labels, weights)
    assert curves.calibration_error == pytest.approx(0.5 * 0.05 + 0.5 * 0.2)
    assert math.isnan(task_curves(*(column[:0] for column in (predictions, labels, weights))).calibration_error)


def test_certain_predictions_have_a_place():
    curves = task_curves(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]), torch.ones(2))
    assert [(point.prediction, point.label) for point in curves.reliability] == [(0, 0), (1, 1)]
    assert curves.true_positives == (1.0,) * THRESHOLDS
    assert curves.false_positives == (1.0,) + (0.0,) * (THRESHOLDS - 1)
