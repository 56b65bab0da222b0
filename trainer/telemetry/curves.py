"""Two curves of a binary task's evaluation, from histograms that add up over ranks: reliability and precision-recall.

Reliability compares the mean prediction with the mean label in bins of equal width in log-odds, so that a task of rare
positives, whose predictions all lie near zero, gets as many points as a frequent one. Drawing is left to `pictures`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.ranks.collectives import Group, sum_over_ranks

THRESHOLDS = 127  # as many as TensorBoard's plugin takes
LOG_ODDS = 10.0  # bins from -10 to 10, half a unit wide: probabilities 0.00005 to 0.99995
EDGES = torch.linspace(-LOG_ODDS, LOG_ODDS, 41, dtype=torch.float64)


@dataclass(frozen=True)
class ReliabilityPoint:
    """Rows with about the same prediction."""

    prediction: float  # weighted mean
    label: float  # weighted mean
    share: float  # of the sum of weights


@dataclass(frozen=True)
class TaskCurves:
    """Of one task, over every row of all ranks."""

    reliability: tuple[ReliabilityPoint, ...]  # by rising prediction, without empty bins
    true_positives: tuple[float, ...]  # [THRESHOLDS] weight of positives predicted at or above i / (THRESHOLDS - 1)
    false_positives: tuple[float, ...]  # [THRESHOLDS] likewise of negatives

    @property
    def calibration_error(self) -> float:
        """Weighted mean over bins of |mean prediction - mean label| (ECE, Naeini et al. 2015); NaN without rows."""
        gaps = [point.share * abs(point.prediction - point.label) for point in self.reliability]
        return sum(gaps) if gaps else math.nan


def task_curves(predictions: Tensor, labels: Tensor, weights: Tensor, group: Group = None) -> TaskCurves:
    """Of this rank's rows [n] each, weights above zero, joined with those of all others; the same on every rank."""
    predictions, labels, weights = predictions.double(), labels.double(), weights.double()
    edges = EDGES.to(predictions.device)
    bins = torch.bucketize(torch.logit(predictions), edges)
    thresholds = (predictions.nan_to_num(0) * (THRESHOLDS - 1)).long().clamp(0, THRESHOLDS - 1)
    odds_sums = _histogram(bins, len(edges) + 1, (weights, weights * predictions, weights * labels))
    threshold_sums = _histogram(thresholds, THRESHOLDS, (weights * labels, weights * (1 - labels)))
    sums = sum_over_ranks(torch.cat((odds_sums.flatten(), threshold_sums.flatten())), group).cpu()
    odds_sums, threshold_sums = sums[: odds_sums.numel()].view(3, -1), sums[odds_sums.numel() :].view(2, -1)
    true, false = threshold_sums.flip(1).cumsum(1).flip(1).tolist()
    return TaskCurves(_points(odds_sums), tuple(true), tuple(false))


def _histogram(bins: Tensor, count: int, columns: tuple[Tensor, ...]) -> Tensor:
    """[len(columns), count]: each column [n] summed by `bins` [n]."""
    return torch.stack([column.new_zeros(count).index_add_(0, bins, column) for column in columns])


def _points(sums: Tensor) -> tuple[ReliabilityPoint, ...]:
    """sums: [3, bins] of weight, weight * prediction, weight * label."""
    total = float(sums[0].sum())
    rows = [row for row in sums.T.tolist() if row[0] > 0]
    return tuple(ReliabilityPoint(p / weight, label / weight, weight / total) for weight, p, label in rows)
