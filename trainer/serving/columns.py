"""The one conversion from raw columns to what training had, for every way that rows come to a bundle.

5 and "5" are different IDs, and 7.5 is none where training had integers: such a column would meet other rows of its
table, without any error. So columns are compared with those of training by what their values are, and numbers take
the type of training. Files and requests both go through here, so they get the same answer for the same row. JSON into
columns is for `trainer.serving.rows`, what the values mean for `embeddings.features`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from configs.errors import UserError
from configs.schema import Feature, SparseFeature
from embeddings.features.arrow import (
    flatten,
    floats,
    id_kind,
    is_bytes,
    is_list,
    is_text,
    one_each,
    single_array,
    valid_mask,
)
from embeddings.features.places import Origin, row_of

_WHOLE_UP_TO = {pa.float16(): 2**11, pa.float32(): 2**24}  # beyond, unequal integers are equal floats


def element_type(kind: pa.DataType) -> pa.DataType:
    """The type of single values: without lists, dictionaries and extensions around it."""
    if isinstance(kind, pa.BaseExtensionType):
        return element_type(kind.storage_type)
    return element_type(kind.value_type) if is_list(kind) or pt.is_dictionary(kind) else kind


def as_made(kind: pa.DataType) -> pa.DataType:
    """The type that single values of a type have when they are made of JSON: text, or 64 bits for integers."""
    if is_text(kind) or is_bytes(kind):
        return pa.large_string()
    return pa.int64() if pt.is_integer(kind) else kind


def widest(types: Sequence[pa.DataType]) -> pa.DataType:
    """Of the types that files have for one column, the one that holds what the others do; nulls alone hold nothing."""
    known = [kind for kind in types if not pt.is_null(element_type(kind))]
    return max(known or types, key=lambda kind: _bits(element_type(kind)))


def _bits(kind: pa.DataType) -> int:
    return kind.bit_width if _is_number(kind) else 0


class AsTrained:
    """Tables of raw columns -> the same with values of the kinds, and floats of the types, that training had.

    Args:
        features: of the bundle.
        trained: the raw columns in training; None if nobody knows. A column that it lacks, or that never had a value,
            is left as it comes.
    """

    def __init__(self, features: Mapping[str, Feature], trained: pa.Schema | None) -> None:
        self._ids = {f.column or name for name, f in features.items() if isinstance(f, SparseFeature)}
        self._types = {field.name: element_type(field.type) for field in trained or []}
        self._as_it_is: dict[str, set[pa.DataType]] = {name: set() for name in self._types}

    @property
    def id_columns(self) -> frozenset[str]:
        """The columns that hold IDs."""
        return frozenset(self._ids)

    def __call__(self, table: pa.Table, where: str, first_row: int = 0) -> pa.Table:
        """Converts the columns of `table` that training had; others stay as they are.

        Args:
            where: the rows' origin, for error messages.
            first_row: place there of the table's first row.

        Raises:
            UserError: a column, or a value in one, is of another kind than in training.
        """
        origin = Origin(where, first_row)
        for place, (name, kind) in enumerate(zip(table.column_names, table.schema.types, strict=True)):
            if name in self._types and kind not in self._as_it_is[name] and not pt.is_null(self._types[name]):
                if self._stays(name, kind):
                    self._as_it_is[name].add(kind)
                    continue
                column = _Column(name, single_array(table.column(place)), self._types[name], origin)
                converted = column.as_ids() if name in self._ids else column.as_numbers()
                if converted is not None:
                    table = table.set_column(place, name, converted)
        return table

    def _stays(self, name: str, kind: pa.DataType) -> bool:
        """Whether a column of type `kind` may stay as it is, whatever is in it."""
        kind, trained = element_type(kind), self._types[name]
        if name in self._ids:
            return id_kind(kind) == id_kind(trained) and not pt.is_floating(trained)
        return kind == trained or (_is_number(kind) and not pt.is_floating(trained))


class _Column:
    """One raw column beside the type of its values in training. `as_...` give None for one that may stay as it is."""

    def __init__(self, name: str, array: pa.Array, trained: pa.DataType, origin: Origin) -> None:
        self._name, self._array, self._trained = name, array, trained
        self._origin = origin
        self._values, self._lengths = flatten(array)

    def as_ids(self) -> pa.Array | None:
        kind, trained = id_kind(self._values.type), id_kind(self._trained)
        if kind == "nothing":
            return None
        if self._values.null_count == len(self._values):
            return self._with(pa.nulls(len(self._values)))
        if _is_number(self._values.type) and pt.is_floating(self._trained):
            return self._floats(is_id=True)
        if _is_number(self._values.type) and trained == "integers":
            return None if kind == "integers" else self._integers()
        if kind != trained:
            raise UserError(
                f"{self._origin.column(self._name)} has {kind}, in training it had {trained}: its IDs would meet "
                f"rows of others\nCast it to {self._trained}."
            )
        return None

    def as_numbers(self) -> pa.Array | None:
        """Numbers beside IDs, and weights. Integers of training may be fractions here: nothing is looked up by them."""
        if self._values.null_count == len(self._values):
            return self._with(pa.nulls(len(self._values)))
        is_float = _is_number(self._values.type) and pt.is_floating(self._trained)
        return self._floats(is_id=False) if is_float else None

    def _floats(self, *, is_id: bool) -> pa.Array | None:
        values = self._values
        if pt.is_decimal(values.type):
            values = pa.array(self._filled(), mask=~valid_mask(values))
        if is_id and pt.is_floating(values.type) and np.isnan(self._filled()).any():
            self._refuse_value(np.isnan(self._filled()))
        if values.type == self._trained:
            return None if values is self._values else self._with(values)
        return self._with(values.cast(self._trained, safe=False))

    def _integers(self) -> pa.Array:
        """Whole numbers in a column of floats or decimals, as of a program that has floats alone."""
        numbers = self._filled()
        with np.errstate(invalid="ignore"):
            is_whole = (np.floor(numbers) == numbers) & (np.abs(numbers) <= _WHOLE_UP_TO.get(self._values.type, 2**53))
        if not is_whole.all():
            self._refuse_value(~is_whole)
        return self._with(pa.array(numbers.astype(np.int64), mask=~valid_mask(self._values)))

    def _filled(self) -> npt.NDArray:
        """The values as floats, 0 for null."""
        return floats(self._values, 0.0, self._origin.column(self._name))

    def _refuse_value(self, is_wrong: npt.NDArray[np.bool_]) -> None:
        place = int(np.argmax(is_wrong))
        cell = self._origin.cell(row_of(place, self._lengths), self._name)
        what = "integers" if id_kind(self._trained) == "integers" else str(self._trained)
        raise UserError(
            f"{cell} holds {self._values[place]}, in training it had {what}: this is none of its IDs\n"
            "Write null for a missing ID."
        )

    def _with(self, values: pa.Array) -> pa.Array:
        """The column with other values in the same places."""
        if one_each(self._lengths):
            return values
        offsets = np.concatenate(([0], np.cumsum(self._lengths, dtype=np.int64)))
        return pa.LargeListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~valid_mask(self._array)))


def _is_number(kind: pa.DataType) -> bool:
    return pt.is_integer(kind) or pt.is_boolean(kind) or pt.is_floating(kind) or pt.is_decimal(kind)
