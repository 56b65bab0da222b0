"""Exact area under the ROC curve over any number of rows and ranks: weighted, with ties, and grouped (GAUC).

AUC is the chance that a positive scores above a negative, ties counting one half (Mann and Whitney 1947), pairs
weighted by the product of their weights. Rows are exchanged so that no rank ever holds the whole set: for AUC every
rank takes a range of scores, for GAUC the groups that hash to it. Both are exact: the same number, up to the rounding
of float64 sums, for one rank and for many. Where the rows come from is `metrics`' business.

Labels may be soft: a row of weight w and label y is w*y of positive and w*(1-y) of negative mass.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.ranks.collectives import Group, exchange, gather_over_ranks, ranks, sum_over_ranks

Merged = tuple[Tensor, Tensor]  # distinct scores [n], rising, and the positive and negative mass [2, n] at each

SAMPLES = 256  # scores that a rank shows the others, from which the cuts between ranges are chosen


class Rows(NamedTuple):
    """Rows of one task on this rank; their number may differ by rank and be zero."""

    scores: Tensor  # [n]
    labels: Tensor  # [n]
    weights: Tensor  # [n]


def auc(scores: Tensor, labels: Tensor, weights: Tensor, group: Group = None) -> float:
    """AUC of this rank's rows [n] joined with those of all others; every rank gets the answer.

    NaN without positives, without negatives, or with a NaN score.
    """
    return areas([Rows(scores, labels, weights)], group)[0]


def areas(tasks: Sequence[Rows], group: Group = None) -> list[float]:
    """The AUC of each task, in one exchange for all of them: what ranks wait for is each other.

    A rank holds about (all rows) / (ranks) distinct scores of a task at any time: equal scores travel as one.
    """
    if not tasks:
        return []
    merged = [_merge_ties(rows.scores.double(), torch.stack(_masses(rows.labels, rows.weights))) for rows in tasks]
    broken = [torch.isnan(distinct[-1:]).any() for distinct, _ in merged]  # NaN comes last
    if ranks(group) > 1:
        merged = _by_ranges(merged, group)
    sums = [torch.stack((*_pairs(masses), is_nan)) for (_, masses), is_nan in zip(merged, broken, strict=True)]
    ranges = gather_over_ranks(torch.stack(sums), group).cpu()  # [W, T, 4], scores rising with the rank
    return [_area(task) for task in ranges.unbind(1)]


def _pairs(masses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of positive and of negative mass, and of their pairs with the positive above, ties half.

    masses: [2, n], scores rising.
    """
    positive, negative = masses
    return positive.sum(), negative.sum(), (positive * (negative.cumsum(0) - negative / 2)).sum()


def _area(ranges: Tensor) -> float:
    """From what `_pairs` and whether a score was NaN say of each range [W, 4]."""
    positives, negatives, pairs, broken = ranges.unbind(1)
    below = torch.cat((negatives.new_zeros(1), negatives.cumsum(0)[:-1]))  # negatives of lower ranges
    area, total = float((pairs + positives * below).sum()), float(positives.sum() * negatives.sum())
    return area / total if total > 0 and not broken.any() else math.nan


def _by_ranges(merged: Sequence[Merged], group: Group) -> list[Merged]:
    """Each task's distinct scores of all ranks, of which every rank gets a range."""
    cuts = _cuts([scores for scores, _ in merged], group)
    rows, destinations = [], []
    for task, (scores, masses) in enumerate(merged):
        rows.append(torch.stack((torch.full_like(scores, task), scores, *masses), dim=1))
        destinations.append(torch.bucketize(scores, cuts[task]))
    here = exchange(torch.cat(rows), torch.cat(destinations), group)
    of_task = (here[here[:, 0] == task, 1:].t().contiguous() for task in range(len(merged)))
    return [_merge_ties(part[0], part[1:]) for part in of_task]


def grouped_auc(scores: Tensor, labels: Tensor, weights: Tensor, groups: Tensor, group: Group = None) -> float:
    """Mean of the AUC inside each group, weighted by the group's sum of weights (Zhu et al. 2017, GAUC).

    groups: [n] int64, any values (user ids, say); a group's rows may lie on many ranks. Groups without a positive or
    without a negative have no AUC and do not count. NaN if no group counts or a score is NaN.
    """
    rows = torch.stack((scores.double(), *_masses(labels, weights)), dim=1)
    broken = sum_over_ranks(torch.isnan(rows).any().double(), group)
    if ranks(group) > 1:
        destination = _mix(groups) % ranks(group)
        rows, groups = exchange(rows, destination, group), exchange(groups[:, None], destination, group)[:, 0]
    order = _argsort(rows[:, 0])
    order = order[torch.argsort(groups[order], stable=True)]
    rows, groups = rows[order], groups[order]
    ids = _runs(groups)
    ties = _runs(torch.stack((ids.double(), rows[:, 0]), dim=1))
    masses = _sum_runs(rows[:, 1:], ties)
    sums = sum_over_ranks(_weigh_groups(masses, _first(ids, ties)), group)
    area, weight = sums.tolist()
    return area / weight if weight > 0 and not float(broken) else math.nan


def _weigh_groups(masses: Tensor, ids: Tensor) -> Tensor:
    """[2]: sums of (group's AUC * its weight) and of weights. masses [n, 2]: by group `ids` [n], then rising score."""
    positive, negative = masses.unbind(1)
    totals = _sum_runs(masses, ids)
    below = _cumsum_runs(negative, ids)  # this score included
    pairs = _sum_runs((positive * (below - negative / 2))[:, None], ids)[:, 0]
    product, weight = totals.prod(1), totals.sum(1)
    counts = product > 0
    return torch.stack(((pairs[counts] / product[counts] * weight[counts]).sum(), weight[counts].sum()))


def _masses(labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    labels, weights = labels.double(), weights.double()
    return weights * labels, weights * (1 - labels)


def _merge_ties(scores: Tensor, masses: Tensor) -> Merged:
    """Distinct scores [m], rising, and the sums [2, m] of `masses` [2, n] at each."""
    order = _argsort(scores)
    scores = scores[order]
    ids = _runs(scores)
    distinct = _first(scores, ids)
    sums = masses.new_zeros((len(masses), len(distinct)))
    return distinct, sums.index_add_(1, ids, masses.index_select(1, order))


def _argsort(values: Tensor) -> Tensor:
    """As torch.argsort, NaN last, equal values in any order; on CPU by NumPy, whose sort is 7 times faster."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.argsort(values.numpy()))
    return torch.argsort(values)


def _runs(values: Tensor) -> Tensor:
    """[n] int64: 0, 1, 2, ... for each run of equal rows of `values` [n] or [n, C]."""
    changed = values[1:] != values[:-1]
    changed = changed if changed.dim() == 1 else changed.any(1)
    return torch.cat((changed.new_zeros(min(len(values), 1)), changed)).cumsum(0)


def _sum_runs(values: Tensor, ids: Tensor) -> Tensor:
    """[runs, C]: `values` [n, C] summed over each run."""
    runs = int(ids[-1]) + 1 if len(ids) else 0
    return values.new_zeros((runs, values.shape[1])).index_add_(0, ids, values)


def _cumsum_runs(values: Tensor, ids: Tensor) -> Tensor:
    """[n]: running sums of `values` [n] inside each run.

    Each pass adds the sums of twice as many rows. One running sum over all runs would leave of a light run what is not
    lost in the weight of those before.
    """
    longest = int(torch.bincount(ids).max()) if len(ids) else 0
    sums, reach = values.clone(), 1
    while reach < longest:
        sums[reach:] += torch.where(ids[reach:] == ids[:-reach], sums[:-reach], 0.0)
        reach *= 2
    return sums


def _first(values: Tensor, ids: Tensor) -> Tensor:
    """The first of `values` [n] in each run."""
    starts = torch.cat((ids.new_ones(min(len(ids), 1)), ids[1:] - ids[:-1])).bool()
    return values[starts]


def _cuts(tasks: Sequence[Tensor], group: Group) -> list[Tensor]:
    """For each task [W - 1] scores that cut its distinct scores of all ranks into ranges, about equal and the same on
    every rank.
    """
    shown = gather_over_ranks(torch.stack([_sample(scores) for scores in tasks]), group)  # [W, T, SAMPLES + 1]
    return [_cut(samples) for samples in shown.unbind(1)]


def _sample(scores: Tensor) -> Tensor:
    """[SAMPLES + 1]: some of the distinct scores, which rise, and their number."""
    sample = scores.new_full((SAMPLES + 1,), math.inf)
    if len(scores):
        places = torch.linspace(0, len(scores) - 1, SAMPLES, device=scores.device).round().long()
        sample[:SAMPLES] = scores[places]
    sample[SAMPLES] = len(scores)
    return sample


def _cut(samples: Tensor) -> Tensor:
    """[W - 1] from the samples [W, SAMPLES + 1] of all ranks."""
    world = len(samples)
    values, order = samples[:, :SAMPLES].flatten().sort()
    share = (samples[:, SAMPLES:] / SAMPLES).expand(-1, SAMPLES).flatten()[order].cumsum(0)
    targets = torch.arange(1, world, device=samples.device, dtype=share.dtype) * share[-1] / world
    return values[torch.searchsorted(share, targets).clamp(max=len(values) - 1)]


def _mix(ids: Tensor) -> Tensor:
    """Non-negative int64 in which neighbouring ids fall far apart (multiplicative hashing, Knuth)."""
    return ((ids ^ (ids >> 31)) * -7046029254386353131 >> 24) & 0x7FFFFFFF
