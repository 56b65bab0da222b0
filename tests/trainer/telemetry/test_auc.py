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


def test_groups_of_very_unequal_weight_do_not_disturb_each_other():
    """A light group behind a heavy one in which the positive scores lowest, and one in which it scores highest."""
    scores = torch.tensor([0.9, 0.1, 0.2, 0.3, 0.4, 0.3, 0.2, 0.1])
    labels = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    heavy, light = 3e30, 1e-3
    weights = torch.tensor([heavy, heavy, *[light] * 6])
    groups = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    assert grouped_auc(scores[2:], labels[2:], weights[2:], groups[2:]) == pytest.approx(0.5, abs=1e-12)
    assert grouped_auc(scores, labels, weights, groups) == pytest.approx(1, abs=1e-12)
    weights = torch.where(groups == 0, 1e9, weights)
    expected = grouped_auc_by_pairs(*(c.tolist() for c in (scores, labels, weights, groups)))
    assert grouped_auc(scores, labels, weights, groups) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3, 64, 1000])
def test_running_sums_of_groups_of_any_length(length):
    random = np.random.default_rng(length)
    rows = 3 * length
    scores, labels, weights = random.random(rows), random.integers(0, 2, rows), 10.0 ** random.integers(-9, 9, rows)
    groups = np.repeat([5, 1, 3], length)
    found = grouped_auc(*(torch.from_numpy(c) for c in (scores, labels, weights, groups)))
    by_group = [auc(*(torch.from_numpy(c[groups == g]) for c in (scores, labels, weights))) for g in (1, 3, 5)]
    sizes = [weights[groups == g].sum() for g in (1, 3, 5)]
    counts = ~np.isnan(by_group)
    if counts.any():
        assert found == pytest.approx(
            np.average(np.array(by_group)[counts], weights=np.array(sizes)[counts]), abs=1e-12
        )


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
