"""Label and weight columns into the numbers that the losses need, and refuses what cannot be trained.

A null or NaN label is no label: weight zero for its task. Weights that come from a rule and not from a column are in
`trainer.data.columns.reweighting`.

R rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.choices import read
from configs.schema import TaskConfig
from trainer.data.columns.numbers import Vector, numbers, refuse_first
from trainer.data.columns.reweighting import rules

Matrix = npt.NDArray[np.float32]


class Targets:
    """Labels and their weights, read from tables of raw columns. Safe to call from several threads."""

    def __init__(self, tasks: Mapping[str, TaskConfig], weight_column: str | None) -> None:
        self._tasks = {name: (task.label or name, task) for name, task in tasks.items()}
        self.labels = tuple(label for label, _ in self._tasks.values())
        self._weight_column = weight_column
        self._unit = {name for name, task in tasks.items() if read("models.losses", task.loss, "INPUT") == "logit"}
        self._rules = {name: rules(name, task) for name, task in tasks.items()}
        weights = [weight_column, *(task.weight_column for task in tasks.values())]
        columns = [*self.labels, *(column for column in weights if column)]
        columns += [column for made in self._rules.values() for rule in made for column in rule.columns]
        self.columns = tuple(dict.fromkeys(columns))

    def __call__(self, table: pa.Table, where: str) -> tuple[Matrix, Matrix]:
        """Labels and weights, [R, T] each.

        Raises:
            UserError: a value is infinite, a label of a cross-entropy is outside [0, 1], a weight is missing or
                negative, or a column is of a type without numbers.
        """
        shape = (table.num_rows, len(self._tasks))
        labels, weights = np.empty(shape, np.float32), np.empty(shape, np.float32)
        rows = None if self._weight_column is None else _weights(table, self._weight_column, where)
        for place, (name, (column, task)) in enumerate(self._tasks.items()):
            given, weight = self._label(table, name, column, where)
            if task.positive_weight != 1:
                weight = np.where(given == 1, weight * np.float32(task.positive_weight), weight)
            if rows is not None:
                weight = weight * rows
            if task.weight_column is not None:
                weight = weight * _weights(table, task.weight_column, where)
            for rule in self._rules[name]:
                weight = weight * rule(table, given, where)
            labels[:, place], weights[:, place] = given, weight
        return labels, weights

    def _label(self, table: pa.Table, name: str, column: str, where: str) -> tuple[Vector, Vector]:
        values = numbers(table, column, where)
        if _all_between(values, 0, 1):  # most columns: neither missing nor wrong
            return values, np.ones(len(values), np.float32)
        given = ~np.isnan(values)
        values = np.where(given, values, np.float32(0))
        remedy = "Write null for a label that is not known."
        refuse_first(~np.isfinite(values), table, column, where, "which is not finite", remedy)
        if name in self._unit:
            wrong = (values < 0) | (values > 1)
            remedy = f"Set tasks.{name}.loss to one for such numbers, as mse, or write 0 and 1."
            refuse_first(wrong, table, column, where, "outside [0, 1]", remedy)
        return values, given.astype(np.float32)


def _all_between(values: Vector, low: float, high: float) -> bool:
    """Whether no number is outside, and none is NaN."""
    return not len(values) or bool(values.min() >= low and values.max() <= high)


def _weights(table: pa.Table, column: str, where: str) -> Vector:
    values = numbers(table, column, where)
    wrong = ~(np.isfinite(values) & (values >= 0))
    refuse_first(wrong, table, column, where, "which is no weight", "Write a finite number of at least 0.")
    return values
