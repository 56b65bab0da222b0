"""What the footers of a part say of its values: what would stop a run in a week, or teach it nothing, comes up first.

Ranges and nulls of columns that have limits are looked at for each row group; a file without statistics passes, and
its values are checked when they are read (`feature_transforms`, `targets`, `groups`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from configs.choices import read
from configs.errors import UserError
from configs.schema import DataConfig, TaskConfig
from embeddings.features.feature_transforms import FeatureTransforms
from embeddings.features.limits import Limits, finite
from trainer.data.columns.reweighting import rules
from trainer.data.dataset.footers import Footer
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.partitions import INTEGER
from trainer.data.dataset.path_columns import values_of
from trainer.data.dataset.source import file_url

_NUMBERS = ("BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE")  # physical types
_WEIGHT = "Write a finite number of at least 0 for every row."


class StatisticsCheck:
    """Is called with the name and the footer of each file of a part, from several threads."""

    def __init__(
        self, tasks: Mapping[str, TaskConfig], data: DataConfig, features: FeatureTransforms, *, evaluates: bool
    ) -> None:
        """evaluates: whether the part is evaluated on: then its rows have groups, and are few enough to look at all."""
        self._tasks, self._weight_column = tasks, data.weight_column
        self._limits = [*_limits_of(tasks, data.weight_column), *features.limits(every=evaluates)]
        if evaluates and data.group_column is not None:
            remedy = "Write a group for every row, or leave data.group_column out."
            self._limits.append((data.group_column, Limits(remedy, nulls=False)))
        self._labelled: set[str] = set()  # columns with a value in a row
        self._weighty: set[str] = set()  # columns with a weight above 0, as far as is known
        self._has_rows = False

    def __call__(self, where: str, footer: Footer) -> None:
        """where: the file's name in messages.

        Raises:
            UserError: a column goes beyond its limits.
        """
        labels = {task.label or name for name, task in self._tasks.items()}
        weights = {column for column, _ in self._weights()}
        columns = {column for column, _ in self._limits} | labels | weights
        places = _places(footer, columns)
        for number in range(footer.metadata.num_row_groups):
            group = footer.metadata.row_group(number)
            found = {column: place.chunk(group) for column, place in places.items()}
            for column, limits in self._limits:
                if column in found:
                    _check(found[column], column, limits, f"{where}, row group {number}")
            untold = set(footer.schema.names) - found.keys()
            self._labelled.update(c for c in labels if c in untold or (c in found and not found[c].is_null))
            self._weighty.update(c for c in weights if c in untold or (c in found and not found[c].is_zero))
            self._has_rows = self._has_rows or group.num_rows > 0

    def check_folders(self, manifest: Manifest) -> None:
        """Looks at columns that are in the names of folders.

        Raises:
            UserError: a value is beyond the limits of its column.
        """
        for folder in manifest.partitions:
            chunks = {column: _of_path(value) for column, value in values_of(folder).items()}
            for column, limits in self._limits:
                if column in chunks:
                    _check(chunks[column], column, limits, file_url(manifest.root, folder))
            self._labelled.update(column for column, chunk in chunks.items() if not chunk.is_null)
            self._weighty.update(column for column, chunk in chunks.items() if not chunk.is_zero)

    def refuse_nothing_to_learn(self, where: str) -> None:
        """After all files and folders of the training part. where: its name in messages.

        Raises:
            UserError: a label is null in every row, or a weight zero.
        """
        if not self._has_rows:
            return
        for name, task in self._tasks.items():
            label = task.label or name
            if label not in self._labelled:
                raise UserError(
                    f"{where}: column {label!r} is null in every row, so tasks.{name} has no row to learn from\n"
                    "Look at the join that made the column, or remove the task."
                )
        for column, key in self._weights():
            if column not in self._weighty:
                raise UserError(
                    f"{where}: column {column!r} is 0 in every row, so there is no row to learn from\n"
                    f"Look at what made the column, or remove {key}."
                )

    def _weights(self) -> Iterator[tuple[str, str]]:
        """Columns of weights, and their keys in the config."""
        if self._weight_column is not None:
            yield self._weight_column, "data.weight_column"
        for name, task in self._tasks.items():
            if task.weight_column is not None:
                yield task.weight_column, f"tasks.{name}.weight_column"


class _Chunk(NamedTuple):
    """What the footer says of a column in a row group; None where it does not."""

    rows: int
    nulls: int | None
    low: float | int | Decimal | None
    high: float | int | Decimal | None

    @property
    def is_null(self) -> bool:
        return self.nulls == self.rows

    @property
    def is_zero(self) -> bool:
        return self.is_null or self.high == 0


def _of_path(value: str | None) -> _Chunk:
    """A value in the name of a folder, as one row."""
    number = int(value) if value is not None and INTEGER.fullmatch(value) else None
    return _Chunk(1, int(value is None), number, number)


class _Place(NamedTuple):
    """Where a column is in a file, and what can be read of its statistics."""

    number: int
    is_empty: bool  # never had a value
    is_flat: bool  # no list, whose nulls are not its elements'
    is_numeric: bool  # no text and no time

    def chunk(self, group: pq.RowGroupMetaData) -> _Chunk:
        rows = group.num_rows
        statistics = None if self.is_empty else group.column(self.number).statistics
        if statistics is None:
            return _Chunk(rows, rows if self.is_empty else None, None, None)
        nulls = statistics.null_count if self.is_flat and statistics.has_null_count else None
        if self.is_numeric and statistics.has_min_max:
            return _Chunk(rows, nulls, statistics.min, statistics.max)
        return _Chunk(rows, nulls, None, None)


def _limits_of(tasks: Mapping[str, TaskConfig], weight_column: str | None) -> Iterator[tuple[str, Limits]]:
    """The limits of labels and weights."""
    for column in (weight_column, *(task.weight_column for task in tasks.values())):
        if column is not None:
            yield column, Limits(_WEIGHT, 0.0, float(np.finfo(np.float32).max), nulls=False)
    for name, task in tasks.items():
        label = task.label or name
        if read("models.losses", task.loss, "INPUT") == "logit":
            remedy = f"Write 0, 1, or null where it is not known; or set tasks.{name}.loss to one as mse."
            yield label, Limits(remedy, 0.0, 1.0)
        else:
            yield label, finite("Write null for a label that is not known.", np.float32)
        for rule in rules(name, task):
            yield from rule.limits.items()


def _places(footer: Footer, columns: set[str]) -> dict[str, _Place]:
    """Where the values of `columns` are: of a list column its elements. A struct has no place."""
    places: dict[str, _Place] = {}
    for path, number in footer.columns.items():
        leaf = footer.metadata.schema.column(number)
        depth, kind = leaf.max_repetition_level, leaf.logical_type.type
        owner = path if not depth else next((c for c in columns if path.startswith(f"{c}.")), "")
        if owner in columns and depth <= 1:
            is_numeric = kind in ("INT", "DECIMAL") or (kind == "NONE" and leaf.physical_type in _NUMBERS)
            places.setdefault(owner, _Place(number, kind == "UNKNOWN", not depth, is_numeric))
    return places


def _check(chunk: _Chunk, column: str, limits: Limits, where: str) -> None:
    if chunk.nulls and not limits.nulls:
        raise UserError(
            f"{where}: column {column!r} is null in {chunk.nulls:,} of {chunk.rows:,} rows\n{limits.remedy}"
        )
    low, high = chunk.low, chunk.high
    if low is None or high is None or limits.allow(low, high):  # pyright: ignore[reportArgumentType]
        return
    raise UserError(
        f"{where}: column {column!r} goes from {_shown(low)} to {_shown(high)}, beyond "
        f"[{_shown(limits.low)}, {_shown(limits.high)}]\n{limits.remedy}"
    )


def _shown(number: float | int | Decimal) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)
