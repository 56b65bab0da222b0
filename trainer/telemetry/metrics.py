"""Metrics of every task over all ranks: one mechanism for the windows of training and for evaluation.

A step only copies its predictions, labels and weights into a block on the device (three kernels, no synchronization).
Sums are formed when a block is full or a result is due; AUC sorts the rows that are kept. In evaluation all rows are
kept (12 bytes a task and row, spread over the ranks) and AUC is exact over every row once. In training a window keeps
the last `BLOCK_ROWS` rows of each rank: its AUC is exact over those rows, which may reach back over several windows or
not cover one; everything else covers each row of the window. A row of weight zero (padding, missing label) counts
nowhere.

Why not a library: torchrec's RecMetricModule gathers all rows of AUC on every rank, knows only windows, and its
grouped AUC fails with two ranks; torchmetrics' AUROC takes no sample weights and gathers everything as well. Exactness
over ranks in bounded memory is what this module is for; the exchange behind AUC is in `auc`.

B batch, T tasks.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from trainer.ranks.collectives import Group, sum_over_ranks
from trainer.telemetry.auc import Rows, areas, grouped_auc

BLOCK_ROWS = 32_768
TaskValues = Mapping[str, Mapping[str, float]]


class TaskMetrics:
    """Accumulates one stream of batches. Every rank updates and computes equally often."""

    def __init__(
        self,
        tasks: Sequence[str],
        binary: Collection[str],
        device: torch.device | str = "cpu",
        *,
        keep_all: bool,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        """binary: tasks whose predictions are probabilities (NE, AUC, calibration); the others have MAE and RMSE.

        keep_all: evaluation, every row is kept for AUC; otherwise the last `block_rows` of each rank.
        """
        self.tasks, self.binary, self.keep_all, self.block_rows = tuple(tasks), frozenset(binary), keep_all, block_rows
        self._full: list[Tensor] = []  # of keep_all: blocks as the one below
        self._groups: list[Tensor] = []
        self._block = torch.zeros(3, len(self.tasks), block_rows, device=device)  # predictions, labels, weights
        self._at = self._summed = 0  # rows written to the block, rows of it that are in the sums
        self._wrapped = False
        self._names = ("rows", "weight", "label", "prediction")
        self._names += ("cross_entropy",) * any(task in self.binary for task in self.tasks)
        self._names += ("absolute", "squared") * any(task not in self.binary for task in self.tasks)
        self._sums = torch.zeros(len(self._names), len(self.tasks), dtype=torch.float64, device=device)
        self._losses = torch.zeros(len(self.tasks), dtype=torch.float64, device=device)

    def update(
        self, predictions: Tensor, labels: Tensor, weights: Tensor, task_losses: Tensor, groups: Tensor | None = None
    ) -> None:
        """Predictions, labels, weights [B, T]; task_losses [T]: sums over the batch of weight * loss.

        groups: [B] int64 for GAUC (evaluation); either every update has them or none.
        """
        assert predictions.shape == labels.shape == weights.shape, "predictions, labels and weights are all [B, T]"
        self._losses += task_losses
        if groups is not None:
            assert self.keep_all, "GAUC needs every row"
            self._groups.append(groups.clone())
        done = 0
        while done < len(predictions):
            if self._at == self.block_rows:
                self._next_block()
            rows = slice(done, done + min(len(predictions) - done, self.block_rows - self._at))
            done = rows.stop
            self._write(predictions[rows], labels[rows], weights[rows])

    def compute(self, group: Group = None) -> dict[str, dict[str, float]]:
        """{task: {metric: value}} over all ranks, the same on each; NaN where a metric is undefined.

        loss: sum of weighted losses / sum of weights. rows: of weight above zero. Of binary tasks: ne, the normalized
        entropy (cross entropy over that of always predicting the mean label; He et al. 2014); calibration, sum of
        predictions / sum of labels; auc; gauc, where groups were given. Of others: mae, rmse.
        """
        self._sum_up()
        sums = sum_over_ranks(torch.cat((self._sums, self._losses[None])), group).tolist()
        columns = dict(zip((*self._names, "loss"), sums, strict=True))
        result = {
            task: _ratios({name: values[t] for name, values in columns.items()}, task in self.binary)
            for t, task in enumerate(self.tasks)
        }
        binary = [task for task in self.tasks if task in self.binary]
        kept = [self.kept(task) for task in binary]
        for task, rows, area in zip(binary, kept, areas(kept, group), strict=True):
            result[task]["auc"] = area
            if self._groups:
                result[task]["gauc"] = grouped_auc(*rows, self._groups_of(task), group)
        return result

    def restart(self) -> None:
        """Begin the next window: sums are zero again; the rows kept for AUC stay."""
        self._sum_up()
        self._sums.zero_()
        self._losses.zero_()

    def state(self) -> dict[str, Tensor]:
        """All of this window, and the rows that are kept for AUC in training, for `load_state`."""
        assert not self.keep_all, "an evaluation is not saved amid its rows"
        places = torch.tensor([self._at, self._summed, int(self._wrapped)])
        rows = self._block[:, :, : self.block_rows if self._wrapped else self._at].contiguous()
        return {"sums": self._sums, "losses": self._losses, "rows": rows, "places": places}

    def load_state(self, *of_ranks: Mapping[str, Tensor]) -> None:
        """Goes on where other windows were: with one, bit for bit as it would have."""
        first, *others = of_ranks
        self._sums.copy_(first["sums"])
        self._losses.copy_(first["losses"])
        self._block[:, :, : first["rows"].shape[2]] = first["rows"]
        self._at, self._summed, self._wrapped = *first["places"][:2].tolist(), bool(first["places"][2])
        for other in others:
            self._add(other)

    def _add(self, other: Mapping[str, Tensor]) -> None:
        """Of a rank that is no more: its sums, its rows that are in none yet, and nothing for AUC."""
        at, summed, _ = other["places"].tolist()
        self._sums += other["sums"].to(self._sums.device)
        self._losses += other["losses"].to(self._losses.device)
        predictions, labels, weights = other["rows"][:, :, summed:at].to(self._block.device).mT
        self.update(predictions, labels, weights, torch.zeros_like(self._losses))

    def kept(self, task: str) -> Rows:
        """This rank's kept rows of a task that count."""
        columns = self._columns(task)
        counted = columns[2] > 0
        return Rows(*(columns if bool(counted.all()) else columns[:, counted]))

    def _columns(self, task: str) -> Tensor:
        """[3, n]: predictions, labels, weights of the kept rows of a task."""
        t = self.tasks.index(task)
        end = self.block_rows if self._wrapped else self._at
        blocks = [*(block[:, t] for block in self._full), self._block[:, t, :end]]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)

    def _groups_of(self, task: str) -> Tensor:
        """[n] int64, of the rows that `kept` returns."""
        return torch.cat(self._groups)[self._columns(task)[2] > 0]

    def _write(self, predictions: Tensor, labels: Tensor, weights: Tensor) -> None:
        end = self._at + len(predictions)
        for rows, values in zip(self._block[:, :, self._at : end], (predictions, labels, weights), strict=True):
            rows.copy_(values.t())
        self._at = end

    def _next_block(self) -> None:
        self._sum_up()
        if self.keep_all:
            self._full.append(self._block)
            self._block = torch.zeros_like(self._block)
        else:
            self._wrapped = True
        self._at = self._summed = 0

    def _sum_up(self) -> None:
        """Add the rows of the block that are not in the sums yet."""
        predictions, labels, weights = self._block[:, :, self._summed : self._at]
        self._summed = self._at
        counted = weights > 0
        predictions = predictions.where(counted, 0.5)  # whatever the model says of padding, NaN included
        parts = [counted, weights, weights * labels, weights * predictions]
        if "cross_entropy" in self._names:
            parts.append(weights * _cross_entropy(predictions, labels))
        if "squared" in self._names:
            error = (predictions - labels).abs()
            parts += [weights * error, weights * error.square()]
        self._sums += torch.stack([part.sum(1, dtype=torch.float64) for part in parts])


def _cross_entropy(predictions: Tensor, labels: Tensor) -> Tensor:
    """Of float32 probabilities, clamped to 1e-12 and to 1 - 2^-24, the largest float32 below one."""
    predictions = predictions.clamp(1e-12, 1 - 2**-24)
    other = torch.log1p(-predictions)
    return labels * (other - predictions.log()) - other


def _ratios(sums: dict[str, float], binary: bool) -> dict[str, float]:
    weight = sums["weight"]
    values = {"loss": _divide(sums["loss"], weight), "rows": sums["rows"]}
    if not binary:
        return values | {"mae": _divide(sums["absolute"], weight), "rmse": math.sqrt(_divide(sums["squared"], weight))}
    base = _divide(sums["label"], weight)
    entropy = -base * math.log(base) - (1 - base) * math.log1p(-base) if 0 < base < 1 else 0.0
    return values | {
        "ne": _divide(_divide(sums["cross_entropy"], weight), entropy),
        "calibration": _divide(sums["prediction"], sums["label"]),
    }


def _divide(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
