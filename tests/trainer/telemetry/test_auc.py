import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.telemetry.auc import auc, grouped_auc


def auc_by_pairs(scores, labels, weights):
    """Every pair of rows, one by one."""
    won = total = 0.0
    for i in range(len(scores)):
        for j in range(len(scores)):
            pair = weights[i] * labels[i] * weights[j] * (1 - labels[j])
            total += pair
            won += pair * (1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0)
    return won / total if total else math.nan


def grouped_auc_by_pairs(scores, labels, weights, groups):
    values, sizes = [], []
    for group in sorted(set(groups)):
        member = [i for i, g in enumerate(groups) if g == group]
        value = auc_by_pairs(*([column[i] for i in member] for column in (scores, labels, weights)))
        if not math.isnan(value):
            values.append(value)
            sizes.append(sum(weights[i] for i in member))
    return np.average(values, weights=sizes) if values else math.nan


SCORES = st.sampled_from([0.0, 0.125, 0.25, 0.3, 0.5, 0.9, 1.0])
ROWS = st.lists(
    st.tuples(
        SCORES,
        st.sampled_from([0.0, 1.0, 0.5]),  # soft labels too
        st.sampled_from([0.25, 1.0, 2.5]),
        st.sampled_from([-(2**63), -7, 0, 1, 2**62]),
    ),
    max_size=24,
)


def columns(rows):
    return [[row[c] for row in rows] for c in range(4)]


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_auc_equals_the_count_of_pairs(rows):
    scores, labels, weights, _ = columns(rows)
    expected = auc_by_pairs(scores, labels, weights)
    found = auc(*(torch.tensor(c, dtype=torch.float32) for c in (scores, labels, weights)))
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_grouped_auc_equals_the_count_of_pairs_in_each_group(rows):
    scores, labels, weights, groups = columns(rows)
    expected = grouped_auc_by_pairs(scores, labels, weights, groups)
    tensors = (torch.tensor(c, dtype=torch.float32) for c in (scores, labels, weights))
    found = grouped_auc(*tensors, torch.tensor(groups, dtype=torch.int64))
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_auc_does_not_depend_on_the_order_of_rows_or_the_scale_of_scores():
    random = torch.Generator().manual_seed(1)
    scores, labels = torch.randn(500, generator=random), (torch.rand(500, generator=random) < 0.2).float()
    weights, order = torch.rand(500, generator=random), torch.randperm(500, generator=random)
    value = auc(scores, labels, weights)
    assert auc(scores[order], labels[order], weights[order]) == pytest.approx(value, abs=1e-14)
    assert auc(torch.sigmoid(scores.double()), labels, weights * 8) == pytest.approx(value, abs=1e-14)
    assert auc(-scores, labels, weights) == pytest.approx(1 - value, abs=1e-14)


def test_a_nan_score_is_not_ranked_silently():
    scores, labels = torch.tensor([0.1, math.nan, 0.7]), torch.tensor([0.0, 1.0, 1.0])
    assert math.isnan(auc(scores, labels, torch.ones(3)))
    assert math.isnan(grouped_auc(scores, labels, torch.ones(3), torch.zeros(3, dtype=torch.int64)))
