"""Calibrates predictions of probabilities: fitted on labelled rows of the validation part, computed in the program.

Either is rising, so the order of rows stays. platt: sigmoid(a * logit + b). isotonic: rows in up to 100 groups of
equal weight by prediction, neighbours pooled until the rates of labels rise (pool adjacent violators), straight lines
between the groups' means; outside of them nearly level.

The program's numbers are weights of the bundle, of one shape whatever was fitted. N rows, K knots.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from configs.errors import UserError
from configs.export_config import CalibrationKind
from configs.schema import Config
from models.criterion import Criterion
from trainer.data.columns.targets import Targets
from trainer.serving.signature import Quality, TaskCalibration, Weight

_Array = npt.NDArray[np.float64]
_GROUPS = 100
_KNOTS = _GROUPS + 2
_OUTSIDE = 0.01  # of what is left to 0 and to 1: what the line rises by beyond the first and the last group
_FEWEST_ROWS = 200
_FEWEST_OF_A_KIND = 10
_BINS = 10


@dataclass(frozen=True)
class Labelled:
    """Rows of one task that have a label: places in the sample, labels and weights [N]."""

    rows: npt.NDArray[np.int64]
    labels: _Array
    weights: _Array


@dataclass(frozen=True)
class Calibration:
    """What was fitted for a task. numbers: [2] a and b of platt; [2, K] predictions and what they become."""

    kind: CalibrationKind
    numbers: npt.NDArray[np.float32]

    def __call__(self, predictions: npt.NDArray[Any], logits: npt.NDArray[Any]) -> _Array:
        """Calibrated predictions [N] in 64 bits."""
        first, second = self.numbers.astype(np.float64)
        if self.kind == "platt":
            return _sigmoid(first * logits.astype(np.float64) + second)
        return np.interp(predictions, first, second)

    @property
    def steepness(self) -> float:
        """What a difference between predictions grows by at most; at least 1."""
        first, second = self.numbers.astype(np.float64)
        return max(1.0, float(first if self.kind == "platt" else (np.diff(second) / np.diff(first)).max()))


def reserved(kinds: Mapping[str, CalibrationKind]) -> list[Weight]:
    """The bundle's weights that hold the numbers, in the order of `kinds`."""
    shapes = {"platt": (2,), "isotonic": (2, _KNOTS)}
    return [Weight(name=weight_name(task), dtype="float32", shape=shapes[kind]) for task, kind in kinds.items()]


def weight_name(task: str) -> str:
    """Of the numbers of a task in the bundle."""
    return f"calibration.{task}"


def calibrated(kind: CalibrationKind, numbers: Tensor, predictions: Tensor, logits: Tensor) -> Tensor:
    """The same as a `Calibration`, in the program: [N] -> [N]. Places are counted, which every runtime can."""
    if kind == "platt":
        return torch.sigmoid(numbers[0] * logits.float() + numbers[1])
    x, y = numbers[0], numbers[1]
    at = (predictions[:, None] > x[None, :]).sum(dim=1).clamp(1, _KNOTS - 1)
    part = (predictions - x[at - 1]) / (x[at] - x[at - 1])
    return y[at - 1] + part * (y[at] - y[at - 1])


def labelled_rows(config: Config, data: pa.Table | None, file: str | None) -> dict[str, Labelled]:
    """For every task to calibrate its rows with a label. Weights are those of columns: `positive_weight` and rules
    are no part of what the data is, and what they do to predictions is undone here.

    Args:
        data: raw rows of the validation part; None where there are none.

    Raises:
        UserError: a task does not exist or predicts no probability, or too few rows have a label, or of one kind.
    """
    binary = Criterion(config.tasks).binary
    return {task: _labelled(config, task, task in binary, data, file) for task in config.export.calibration}


def _labelled(config: Config, name: str, is_binary: bool, data: pa.Table | None, file: str | None) -> Labelled:
    where = f"export.calibration.{name}"
    if not is_binary:
        why = "predicts no probability" if name in config.tasks else f"is no task; there are: {', '.join(config.tasks)}"
        raise UserError(f"{where}: {name!r} {why}\nCalibrate tasks with a loss of probabilities, such as bce.")
    plain = config.tasks[name].model_copy(update={"positive_weight": 1.0, "reweight": {}})
    targets = Targets({name: plain}, config.data.weight_column)
    missing = None if data is None else [c for c in targets.columns if c not in data.column_names]
    if data is None or missing:
        why = "no rows of the validation part can be read" if data is None else f"{file} has no column {missing}"
        raise UserError(f"{where}: {why}\nIt is fitted on export.parity_rows of data.validation, with labels.")
    labels, weights = (matrix[:, 0].astype(np.float64) for matrix in targets(data, str(file)))
    rows = np.flatnonzero(weights > 0)
    labels, weights = labels[rows], weights[rows]
    ones = float((weights * labels).sum() / weights.mean()) if len(rows) else 0.0
    fewest = min(ones, len(rows) - ones)
    if len(rows) < _FEWEST_ROWS or fewest < _FEWEST_OF_A_KIND:
        raise UserError(
            f"{where}: {len(rows):,} of {data.num_rows:,} rows of {file} have a label, {ones:,.0f} of them positive; "
            f"it takes {_FEWEST_ROWS} with {_FEWEST_OF_A_KIND} of either kind\n"
            "Raise export.parity_rows, put more rows into the first file of data.validation, or leave the task out."
        )
    return Labelled(rows, labels, weights)


def fit(kind: CalibrationKind, name: str, predictions: _Array, logits: _Array, labelled: Labelled) -> Calibration:
    """Fits one to predictions and logits [N] of the labelled rows.

    Raises:
        UserError: predictions do not rise with labels, so that nothing rising can better them.
    """
    found = _fit(kind, predictions, logits, labelled.labels, labelled.weights)
    first = found.numbers[0]
    if (first <= 0) if kind == "platt" else (np.count_nonzero((first > 0) & (first < 1)) < 2):
        raise UserError(
            f"export.calibration.{name}: predictions do not rise with labels over {len(labelled.rows):,} rows\n"
            "Train the task until its AUC is above 0.5, or leave it out."
        )
    return found


def report(fitted: Calibration, predictions: _Array, logits: _Array, labelled: Labelled) -> TaskCalibration:
    """Before and after. What is after is of rows that the fit has not seen: each half is put through the other's."""
    after, labels, weights = np.empty_like(predictions), labelled.labels, labelled.weights
    half = np.empty(len(labels), np.int64)
    half[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % 2  # either has labels of both kinds
    for part in (0, 1):
        seen, unseen = half == part, half != part
        other = _fit(fitted.kind, predictions[seen], logits[seen], labels[seen], weights[seen])
        after[unseen] = other(predictions[unseen], logits[unseen])
    return TaskCalibration(
        kind=fitted.kind,
        rows=len(labels),
        before=quality(predictions, labels, weights),
        after=quality(after, labels, weights),
    )


def quality(predictions: _Array, labels: _Array, weights: _Array) -> Quality:
    """How far probabilities [N] are from labels; the bins of the expected calibration error are of equal weight."""
    p = np.clip(predictions, 1e-7, 1 - 1e-7)
    loss = -(labels * np.log(p) + (1 - labels) * np.log1p(-p))
    order = np.argsort(predictions, kind="stable")
    bins = _groups(weights[order], _BINS)
    gaps = np.bincount(bins, (weights * (predictions - labels))[order])
    return Quality(
        log_loss=float((weights * loss).sum() / weights.sum()),
        ratio=float((weights * predictions).sum() / (weights * labels).sum()),
        error=float(np.abs(gaps).sum() / weights.sum()),
    )


def _fit(kind: CalibrationKind, predictions: _Array, logits: _Array, labels: _Array, weights: _Array) -> Calibration:
    numbers = _platt(logits, labels, weights) if kind == "platt" else _isotonic(predictions, labels, weights)
    return Calibration(kind, numbers.astype(np.float32))


def _platt(logits: _Array, labels: _Array, weights: _Array) -> _Array:
    """a and b of the least log loss, by Newton. Labels are drawn in a little, as Platt (1999) does: a stays finite."""
    weights = weights / weights.mean()
    ones = (weights * labels).sum()
    low, high = 1 / (len(labels) - ones + 2), (ones + 1) / (ones + 2)
    targets = low + labels * (high - low)
    x, found = np.stack([logits, np.ones_like(logits)]), np.array([1.0, 0.0])

    def loss(numbers: _Array) -> float:
        z = numbers @ x
        return float((weights * (np.logaddexp(0, z) - targets * z)).sum())

    for _ in range(50):
        p = _sigmoid(found @ x)
        curvature = (x * (weights * p * (1 - p))) @ x.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, x @ (weights * (p - targets)))
        while loss(found - step) > loss(found) and np.abs(step).max() > 1e-9:
            step = step / 2
        found = found - step
        if np.abs(step).max() < 1e-9:
            break
    return found


def _isotonic(predictions: _Array, labels: _Array, weights: _Array) -> _Array:
    """[2, K]: knots from 0 to 1, then some beyond 1 that fill up."""
    x, y = _pooled(predictions, labels, weights)
    x = x.astype(np.float32).astype(np.float64)
    x, kept = np.unique(x, return_index=True)
    y = y[kept]
    least = 0.5 / len(labels)  # a group without a positive row is not of probability 0
    y[0] = max(y[0], min(least, y[1] / 2)) if len(y) > 1 else y[0]
    y[-1] = min(y[-1], max(1 - least, (1 + y[-2]) / 2)) if len(y) > 1 else y[-1]
    if x[0] > 0:
        x, y = np.append(0, x), np.append(y[0] * (1 - _OUTSIDE), y)
    if x[-1] < 1:
        x, y = np.append(x, 1), np.append(y, y[-1] + _OUTSIDE * (1 - y[-1]))
    more = _KNOTS - len(x)
    return np.stack([np.append(x, 2 + np.arange(more)), np.append(y, np.full(more, y[-1]))])


def _pooled(predictions: _Array, labels: _Array, weights: _Array) -> tuple[_Array, _Array]:
    """Mean prediction and mean label of groups, both rising."""
    _, places = np.unique(predictions, return_inverse=True)  # equal predictions stay together
    sums = np.stack([np.bincount(places, w) for w in (weights, weights * predictions, weights * labels)])
    groups = _groups(sums[0], _GROUPS)
    blocks: list[_Array] = []
    for group in np.unique(groups):
        block = sums[:, groups == group].sum(axis=1)
        while blocks and blocks[-1][2] / blocks[-1][0] >= block[2] / block[0]:
            block = block + blocks.pop()
        blocks.append(block)
    weight, x, y = np.stack(blocks, axis=1)
    return x / weight, y / weight


def _groups(weights: _Array, count: int) -> npt.NDArray[np.int64]:
    """The group of each of values in order: `count` of equal weight."""
    middles = np.cumsum(weights) - weights / 2
    return np.minimum((middles / weights.sum() * count).astype(np.int64), count - 1)


def _sigmoid(z: _Array) -> _Array:
    return np.exp(-np.logaddexp(0, -z))
