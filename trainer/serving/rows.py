"""Rows as dicts, such as JSON gives, into columns of the types that their values have by themselves.

What training had decides nothing here: `trainer.serving.columns` compares, for files and requests alike.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any, NoReturn

import pyarrow as pa

from configs.errors import UserError

_KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
_EXACT = 2**53  # up to here every integer is a double
_RANGE = (-(2**63), 2**63)


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], ids: Collection[str] = ()) -> pa.Table:
    """Rows as a table of `columns`; other keys are ignored.

    Args:
        ids: the columns that hold IDs, whose integers from 2**63 to 2**64 - 1 keep their bits beside negative ones.

    Raises:
        UserError: a row lacks a column, or holds what no column can. A missing value is null.
    """
    return pa.table([_Values(name, _of_column(rows, name), name in ids).array() for name in columns], list(columns))


def array_of(name: str, values: list[Any], is_id: bool = False) -> pa.Array:
    """The single values of one column, such as a JSON tensor has, as `table_of` makes them."""
    return _Values(name, values, is_id).array()


def _of_column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    try:
        return [row[name] for row in rows]
    except KeyError:
        number = next(number for number, row in enumerate(rows) if name not in row)
        raise UserError(f"row {number} has no {name!r}\nSend null for a missing value.") from None


class _Values:
    """The values of one column, one per row, of which some may be lists."""

    def __init__(self, name: str, values: list[Any], is_id: bool) -> None:
        self._name, self._is_id = name, is_id
        self._lengths: list[int] | None = None
        self._nulls: list[bool] = []
        if any(type(value) is list for value in values):  # a single value among lists is a list of one
            lists = [value if type(value) is list else [] if value is None else [value] for value in values]
            self._lengths = [len(value) for value in lists]
            self._nulls = [value is None for value in values]
            values = [element for value in lists for element in value]
        self._values = values

    def array(self) -> pa.Array:
        """The column as its values are: integers, doubles, booleans, text, nothing, or lists of one of these."""
        kinds = {type(value) for value in self._values} - {type(None)}
        if not kinds:
            return self._shaped(pa.nulls(len(self._values)))
        if kinds == {str}:
            return self._shaped(self._text())
        if kinds == {bool}:
            return self._shaped(pa.array(self._values, pa.bool_()))
        if kinds <= {int, float, bool}:
            return self._shaped(self._numbers(kinds))
        return self._refuse_mixture(next(kind for kind in map(type, self._values) if kind is not type(None)))

    def _text(self) -> pa.Array:
        try:
            return pa.array(self._values, pa.large_string())
        except UnicodeEncodeError:
            place = next(place for place, text in enumerate(self._values) if text is not None and not _is_unicode(text))
            self._refuse(place, f"{self._values[place]!a}, which is no Unicode text")

    def _numbers(self, kinds: set[type]) -> pa.Array:
        values = [int(value) if value is True or value is False else value for value in self._values]
        fractions = [value for value in values if type(value) is float]
        if not fractions or (kinds != {float} and all(_is_whole(value) for value in fractions)):
            integers = [value if value is None else int(value) for value in values]
            made = _integers(integers, self._is_id)
            if made is not None:
                return made
        return pa.array([value if value is None else _as_float(value) for value in values], pa.float64())

    def _shaped(self, values: pa.Array) -> pa.Array:
        if self._lengths is None:
            return values
        offsets = [0, *accumulate(self._lengths)]
        nulls = pa.array(self._nulls, pa.bool_())
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values, mask=nulls)

    def _refuse_mixture(self, first: type) -> NoReturn:
        """Refuses the first value that is a list in a list, an object, or of another kind than those before."""
        for place, value in enumerate(self._values):
            if value is None:
                continue
            if type(value) is list:
                self._refuse(place, "a list in a list")
            if type(value) not in _KINDS or type(value) is dict:
                self._refuse(place, _KINDS.get(type(value), str(type(value))))
            if (type(value) is str) != (first is str):
                self._refuse(place, f"{_KINDS[type(value)]}, and {_KINDS[first]} in a row before")
        raise AssertionError(self._values)

    def _refuse(self, place: int, what: str) -> NoReturn:
        row = place
        if self._lengths is not None:
            row = next(row for row, end in enumerate(accumulate(self._lengths)) if place < end)
        raise UserError(f"row {row}: {self._name!r} holds {what}\nSend what the column holds in training.")


def _integers(values: list[int | None], is_id: bool) -> pa.Array | None:
    """The column as integers of 64 bits; None if they have more, or both signs and 64 bits where that is a number."""
    present = [value for value in values if value is not None]
    low, high = min(present), max(present)
    if _RANGE[0] <= low and high < _RANGE[1]:
        return pa.array(values, pa.int64())
    if low < _RANGE[0] or high >= 2 * _RANGE[1]:
        return None
    if low >= 0:
        return pa.array(values, pa.uint64())
    if not is_id:
        return None
    return pa.array([v if v is None or v < _RANGE[1] else v - 2 * _RANGE[1] for v in values], pa.int64())


def _is_whole(value: float) -> bool:
    return value.is_integer() and abs(value) <= _EXACT


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _as_float(value: float) -> float:
    """Also of an integer beyond all doubles: infinite, as JSON's 1e999 is."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
