"""Parquet columns into what a model reads: IDs as rows of tables, dense columns as one float matrix.

The same code runs in training and in serving, without torch. It leaves the reading of files to `trainer.data`, and
the lookup of the rows to `embeddings.tables`.

Letters: R rows of the table at hand, N IDs of all of them together, D dense width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs import choices
from configs.choice_settings import settings_of
from configs.errors import UserError
from configs.layout import layout_of
from configs.schema import DenseFeature, SparseFeature, TableConfig
from embeddings.features.arrow import flatten, floats, is_list, refuse, single_array, valid_mask
from embeddings.features.bags import Bags
from embeddings.features.dense import dense_numbers, normalize
from embeddings.features.limits import Limits, finite
from embeddings.features.places import ElementError, Origin, row_of
from embeddings.features.together import MOST_ROWS, Together
from embeddings.features.transforms import Transform, TransformModule

Feature = SparseFeature | DenseFeature
Values = TypeVar("Values")
_TRANSFORMS = "embeddings.features.transforms"
_ROWS_AT_A_TIME = 8192  # of the dense matrix: they stay in the cache while column after column is written


@dataclass(frozen=True)
class Columns:
    """R transformed rows.

    Attributes:
        sparse: feature name -> its bags of table rows.
        dense: float32 [R, D], the dense features side by side as the layout says.
        dropped: feature name -> IDs that its transform left out, for the features that left out any.
    """

    sparse: dict[str, Bags]
    dense: npt.NDArray[np.float32]
    dropped: dict[str, int] = field(default_factory=dict)

    def narrow(self, start: int, stop: int) -> Columns:
        """Rows [start, stop), viewed; how many IDs of them were left out is not known."""
        if start == 0 and stop == len(self.dense):
            return self
        bags = {name: bag.narrow(start, stop) for name, bag in self.sparse.items()}
        return Columns(bags, self.dense[start:stop])


class FeatureTransforms:
    """The features of a config, ready to be applied to tables of raw columns. Safe to call from several threads."""

    def __init__(self, features: Mapping[str, Feature], tables: Mapping[str, TableConfig]) -> None:
        """Builds the ID transforms. UserError: a setting of one is wrong, or a vocabulary file is missing."""
        self.features, self._tables = features, tables
        self._sparse = {name: f for name, f in features.items() if isinstance(f, SparseFeature)}
        self._dense = {name: f for name, f in features.items() if isinstance(f, DenseFeature)}
        self._transforms = {name: build_transform(name, f, tables[f.table]) for name, f in self._sparse.items()}
        self.sparse_names = tuple(self._sparse)
        self.weighted_names = tuple(name for name, f in self._sparse.items() if f.weights is not None)
        self.id_columns = tuple(dict.fromkeys(f.column or name for name, f in self._sparse.items()))
        self.dropping_names = tuple(name for name, f in self._sparse.items() if f.out_of_range == "drop")
        layout = layout_of(features, tables)
        self.dense_width, self.dense_spans = layout.dense_width, layout.dense_spans
        self.dense_columns = tuple(f.column or name for name, f in self._dense.items() for _ in range(f.width))
        self._together = Together(self._sparse, self._dense, tables, self.dense_spans)
        columns = [f.column or name for name, f in features.items()]
        columns += [f.weights for f in self._sparse.values() if f.weights is not None]
        self.columns = tuple(dict.fromkeys(columns))

    def limits(self, every: bool) -> Iterator[tuple[str, Limits]]:
        """What columns must be, as far as footers say it. every: of dense columns and weights too, which are many."""
        for name, feature in self._sparse.items():
            module = choices.load(_TRANSFORMS, feature.transform)
            of_ids = module.limits(name, feature, self._tables[feature.table]) if hasattr(module, "limits") else None
            if of_ids is not None:
                yield feature.column or name, of_ids
            if every and feature.weights is not None:
                yield feature.weights, finite("Write a finite number for every ID.", np.float32)
        for name, feature in self._dense.items() if every else ():
            remedy = f"Write null for a missing value: it becomes features.{name}.default."
            yield feature.column or name, finite(remedy, np.float32 if feature.transform == "none" else np.float64)

    def __call__(self, table: pa.Table, where: str, first_row: int = 0) -> Columns:
        """Transforms the rows of `table`.

        Args:
            table: at least `self.columns`; others are ignored.
            where: the rows' origin for error messages, as "part-0.parquet, row group 3".
            first_row: the row of that origin which is the first one of `table`.

        Raises:
            UserError: a column is missing, of a type that cannot be used, or holds a value that cannot be trained.
        """
        origin = Origin(where, first_row)
        present = set(table.column_names)
        for column in self.columns:
            if column not in present:
                raise UserError(f"{where}: there is no column {column!r}\nThere are: {', '.join(table.column_names)}.")
        sparse, dropped = {}, {}
        at_once = self._together.bags(table) if 0 < table.num_rows <= MOST_ROWS else {}
        for name in self._sparse:
            sparse[name], missed = (at_once[name], 0) if name in at_once else self._bags(name, table, origin)
            if missed:
                dropped[name] = missed
        return Columns(sparse, self._matrix(table, origin), dropped)

    def _bags(self, name: str, table: pa.Table, origin: Origin) -> tuple[Bags, int]:
        feature = self._sparse[name]
        column = feature.column or name
        values, lengths = flatten(single_array(table[column]))
        if is_list(values.type):
            refuse(table.schema.field(column).type, origin.column(column), "a list of IDs", "Flatten its lists.")
        weights, numbers = None, None
        if feature.weights is not None:
            weights, weight_lengths = flatten(single_array(table[feature.weights]))
            _check_lengths(lengths, weight_lengths, column, feature.weights, origin)
        if values.null_count:
            keep = valid_mask(values)
            lengths = _shorten(lengths, keep)
            values = values.drop_null()
            weights = None if weights is None else weights.filter(pa.array(keep))
        if feature.max_length is not None and len(lengths) and lengths.max() > feature.max_length:
            last, lengths = _last(lengths, feature.max_length)
            values = values.take(last)
            weights = None if weights is None else weights.take(last)
        if pa.types.is_null(values.type):  # a column that never had a value: the file does not know its type
            rows = np.empty(0, np.int64)
        else:
            rows = _in_rows(self._transforms[name], values, lengths, column, origin)
        if weights is not None and feature.weights is not None:
            numbers = _in_rows(_weights, weights, lengths, feature.weights, origin)
        bags = Bags(rows, lengths, numbers)
        return _drop_misses(bags) if feature.out_of_range == "drop" else (bags, 0)

    def _matrix(self, table: pa.Table, origin: Origin) -> npt.NDArray[np.float32]:
        dense, columns = np.empty((table.num_rows, self.dense_width), np.float32), []
        filled = self._together.fill(dense, table) if 0 < table.num_rows <= MOST_ROWS else set()
        with np.errstate(over="ignore", invalid="ignore"):  # whatever is not finite is refused below, with its place
            for name, feature in self._dense.items():
                if name in filled:
                    continue
                numbers = dense_numbers(table[feature.column or name], feature, feature.column or name, origin)
                columns.append((slice(*self.dense_spans[name]), normalize(numbers, feature)))
            for start in range(0, len(dense), _ROWS_AT_A_TIME):
                rows = slice(start, start + _ROWS_AT_A_TIME)
                for span, numbers in columns:
                    dense[rows, span] = numbers[rows]
        if not np.isfinite(dense).all():
            self._refuse_not_finite(dense, table, origin)
        return dense

    def _refuse_not_finite(self, dense: npt.NDArray[np.float32], table: pa.Table, origin: Origin) -> None:
        row, place = np.argwhere(~np.isfinite(dense))[0]
        name = next(name for name, (start, end) in self.dense_spans.items() if start <= place < end)
        column = self._dense[name].column or name
        raise UserError(
            f"{origin.cell(row, column)} is {table[column][int(row)]}, which is no finite 32-bit number\n"
            f"Write null for a missing value: it becomes features.{name}.default."
        )


def build_transform(name: str, feature: SparseFeature, table: TableConfig) -> Transform:
    """The ID transform of a feature. UserError: there is no such transform, or a setting of it is wrong."""
    module = choices.load(_TRANSFORMS, feature.transform)
    settings = settings_of(module, feature.options, f"features.{name}.options")
    return cast(TransformModule, module).build(settings, name, feature, table)


def _in_rows(
    transform: Callable[[pa.Array, str], Values],
    values: pa.Array,
    lengths: npt.NDArray[np.int32],
    column: str,
    origin: Origin,
) -> Values:
    """`transform` of all elements; a fault of one is reported with its row, of rows with `lengths` elements."""
    try:
        return transform(values, origin.column(column))
    except ElementError as error:
        raise UserError(f"{origin.cell(row_of(error.place, lengths), column)} {error.fault}") from None


def _check_lengths(
    lengths: npt.NDArray[np.int32], weight_lengths: npt.NDArray[np.int32], column: str, weights: str, origin: Origin
) -> None:
    unequal = lengths != weight_lengths
    if unequal.any():
        row = int(np.argmax(unequal))
        raise UserError(
            f"{origin.cell(row, column)} has {lengths[row]} IDs, column {weights!r} {weight_lengths[row]} weights\n"
            "Write one weight per ID."
        )


def _shorten(lengths: npt.NDArray[np.int32], keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Lengths [R] of the bags after only the elements in `keep` [N] stay."""
    if len(keep) == len(lengths) and (lengths == 1).all():
        return keep.astype(np.int32)
    kept = np.concatenate(([0], np.cumsum(keep)))
    ends = np.cumsum(lengths, dtype=np.int64)
    return (kept[ends] - kept[ends - lengths]).astype(np.int32)


def _last(lengths: npt.NDArray[np.int32], limit: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Places of the last `limit` elements of every bag, and the new lengths."""
    shorter = np.minimum(lengths, limit).astype(np.int32)
    ends = np.cumsum(lengths, dtype=np.int64)
    shift = ends - np.cumsum(shorter, dtype=np.int64)
    return np.arange(shorter.sum(), dtype=np.int64) + np.repeat(shift, shorter), shorter


def _weights(weights: pa.Array, where: str) -> npt.NDArray[np.float32]:
    numbers = floats(weights, np.nan, where).astype(np.float32, copy=False)
    if not np.isfinite(numbers).all():
        place = int(np.argmin(np.isfinite(numbers)))
        raise ElementError(where, place, f"has the weight {weights[place]}\nWrite a finite number for every ID.")
    return numbers


def _drop_misses(bags: Bags) -> tuple[Bags, int]:
    """Bags without the IDs that a transform marked with -1, and how many those were."""
    if not len(bags.values) or bags.values.min() >= 0:
        return bags, 0
    keep = bags.values >= 0
    weights = None if bags.weights is None else bags.weights[keep]
    kept = Bags(bags.values[keep], _shorten(bags.lengths, keep), weights)
    return kept, len(keep) - len(kept.values)
