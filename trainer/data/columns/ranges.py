"""Ranges of labels and weights, from the statistics in footers: what would stop a run in a week is refused first.

A file without statistics passes: `trainer.data.columns.targets` looks at every value when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow.parquet as pq

from configs.choices import load
from configs.errors import UserError
from configs.schema import TaskConfig
from trainer.data.dataset.footers import Footer


@dataclass(frozen=True)
class _Range:
    low: float
    high: float
    remedy: str


class Ranges:
    """Looks at footers: of labels that must be between 0 and 1, of weights that must not be negative."""

    def __init__(self, tasks: Mapping[str, TaskConfig], weight_column: str | None) -> None:
        weights = [weight_column, *(task.weight_column for task in tasks.values())]
        remedy = "Write a finite number of at least 0."
        self._ranges = {column: _Range(0.0, math.inf, remedy) for column in weights if column}
        for name, task in tasks.items():
            if load("models.losses", task.loss).INPUT == "logit":
                remedy = f"Write 0, 1, or null where it is not known; or set tasks.{name}.loss to one as mse."
                self._ranges[task.label or name] = _Range(0.0, 1.0, remedy)

    def __call__(self, where: str, footer: Footer) -> None:
        """where: the file's name in messages.

        Raises:
            UserError: a column goes beyond its range.
        """
        paths = footer.columns
        places = [(column, paths[column], wanted) for column, wanted in self._ranges.items() if column in paths]
        for number in range(footer.metadata.num_row_groups):
            group = footer.metadata.row_group(number)
            for column, place, wanted in places:
                _check(group.column(place).statistics, column, wanted, f"{where}, row group {number}")


def _check(statistics: pq.Statistics | None, column: str, wanted: _Range, where: str) -> None:
    if statistics is None or not statistics.has_min_max or not isinstance(statistics.min, int | float):
        return
    low, high = statistics.min, statistics.max
    if low < wanted.low or high > wanted.high:
        raise UserError(
            f"{where}: column {column!r} goes from {low:g} to {high:g}, beyond [{wanted.low:g}, {wanted.high:g}]\n"
            f"{wanted.remedy}"
        )
