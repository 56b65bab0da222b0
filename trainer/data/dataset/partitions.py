"""Names of partitions: the folders of a data set, such as `dt=2024-01-01/hour=8`, and the order they come in.

Which files a data set has is in `trainer.data.dataset.listing`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from urllib.parse import unquote

NULL = "__HIVE_DEFAULT_PARTITION__"  # the value of a row without one, as Hive, Spark, Trino and pyarrow write it

INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_DIGITS = re.compile(r"([0-9]+)")
_ROOT, _NUMBERS, _TEXT, _NULLS = range(4)

Key = list[tuple[str, int, Decimal, list[str | int], str]]


def folder_of(path: str) -> str:
    """The folder of a file below the root of a part: its partition."""
    return path.rpartition("/")[0]


def partition_key(folder: str) -> Key:
    """What partitions are ordered by: the names of the folders, from the root down.

    Numbers count as such (hour=8 comes before hour=10) and stand before other values of their column. Those are ordered
    as text in which digits count as numbers: dt=2024-1-9 comes before dt=2024-1-10. Rows without a value come last. The
    key of a folder depends on nothing but its name, so that folders that come later change nothing about the order of
    the others.
    """
    return [_key_of(name) for name in folder.split("/")]


def _key_of(name: str) -> tuple[str, int, Decimal, list[str | int], str]:
    if not name:  # no folder at all
        return "", _ROOT, Decimal(), [], ""
    column, value = _named(name)
    if value == NULL:
        return column, _NULLS, Decimal(), [], name
    value = unquote(value)
    if _NUMBER.fullmatch(value):
        return column, _NUMBERS, Decimal(value), [], name
    text, *rest = _DIGITS.split(value)  # text and digits by turns
    turns = [text, *(part if place % 2 else int(part) for place, part in enumerate(rest))]
    return column or text, _TEXT, Decimal(), turns, name


def is_null(folder: str) -> bool:
    """Whether a folder holds rows without a value of a partition column."""
    return any(_named(name)[1] == NULL for name in folder.split("/"))


def _named(name: str) -> tuple[str, str]:
    """The column of a folder's name with its equals sign, nothing without one, and the value."""
    column, equals, value = name.partition("=")
    return (column + equals, value) if equals else ("", name)
