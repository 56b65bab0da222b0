"""Columns whose values are in the names of folders: `hour` of a file in `dt=2024-01-01/hour=3`.

Whoever writes partitions (Hive, Spark, Trino, pyarrow) takes their columns out of the files; every reader gives them
back. A column is of integers if all its values are (64 bits), else of strings; dates are strings too. Names are
unescaped (%3A is a colon), and `__HIVE_DEFAULT_PARTITION__` is null. A column that a file has itself is read from the
file, and must not say anything else than its folder: Spark would take the folder's value, pyarrow the file's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from configs.errors import UserError
from trainer.data.dataset.partitions import INTEGER, NULL

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


def values_of(folder: str) -> dict[str, str | None]:
    """Column -> value of all folders in a path that are named column=value; null is None."""
    named = (name.partition("=") for name in folder.split("/") if name.partition("=")[1])
    return {unquote(column): None if value == NULL else unquote(value) for column, _, value in named if column}


def path_types(folders: Iterable[str]) -> dict[str, pa.DataType]:
    """The type of each column in the names of `folders`."""
    types: dict[str, pa.DataType] = {}
    for folder in folders:
        for column, value in values_of(folder).items():
            before = types.setdefault(column, pa.null())
            if value is not None and before != pa.string():
                types[column] = pa.int64() if _is_integer(value) else pa.string()
    return types


def with_path_fields(schema: pa.Schema, folder: str, types: Mapping[str, pa.DataType]) -> pa.Schema:
    """`schema` of a file in `folder` with the columns that its path adds."""
    for column in values_of(folder):
        if column not in schema.names:
            schema = schema.append(pa.field(column, types[column]))
    return schema


def add_path_columns(
    table: pa.Table, folder: str, columns: Collection[str], schema: pa.Schema | None, where: str
) -> pa.Table:
    """`table`, read from a file in `folder`, with those of `columns` that it lacks and the path has.

    Args:
        schema: gives their types; a column that it does not name gets the type of its value.
        where: the rows' origin, for error messages.

    Raises:
        UserError: a folder's value does not fit the type, or a column says something else than its folder.
    """
    values = values_of(folder)
    for column in columns:
        if column not in values:
            continue
        if column in table.column_names:
            _check_same(table[column], column, values[column], where)
        else:
            kind = schema.field(column).type if schema is not None and column in schema.names else None
            table = table.append_column(column, pa.repeat(_scalar(column, values[column], kind, where), table.num_rows))
    return table


def path_value(folder: str, column: str, kind: pa.DataType, where: str) -> pa.Scalar:
    """The value of a column in the names of a path, of type `kind`; UserError if it does not fit."""
    return _scalar(column, values_of(folder)[column], kind, where)


def _scalar(column: str, value: str | None, kind: pa.DataType | None, where: str) -> pa.Scalar:
    if kind is None:
        kind = pa.int64() if value is not None and _is_integer(value) else pa.string()
    plain = _plain(kind)
    try:
        return pa.scalar(None, plain) if value is None else pa.scalar(value).cast(plain)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(
            f"{where}: the folder says {column}={value}, which is not of the column's type {plain}\n"
            f"Rename the folder, or write column {column!r} into the files."
        ) from None


def _check_same(found: pa.ChunkedArray, column: str, value: str | None, where: str) -> None:
    """Compares the column with the folder's value in its own type; what cannot be read so is written another way.

    Times are not compared: a folder may say the day of a time.
    """
    plain = _plain(found.type)
    if value is None or pt.is_nested(plain) or pt.is_null(plain) or (pt.is_temporal(plain) and not pt.is_date(plain)):
        return
    try:
        expected = pa.scalar(value).cast(plain)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return
    differs = pc.not_equal(found.cast(plain), expected)  # pyright: ignore[reportAttributeAccessIssue]
    place = pc.index(differs, True).as_py()
    if place >= 0:
        raise UserError(
            f"{where}, row {place}: column {column!r} is {found[place]}, but its folder says {column}={value}\n"
            "Rename the column or the folder, so that each says what it means."
        )


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, dictionary or not."""
    return getattr(kind, "value_type") if pt.is_dictionary(kind) else kind  # noqa: B009 - for pyright


def _is_integer(value: str) -> bool:
    return INTEGER.fullmatch(value) is not None and _LOWEST <= int(value) <= _HIGHEST
