"""Names of partitions: the folders of a data set, such as `dt=2024-01-01/hour=8`, and the order they come in.

Which files a data set has is in `trainer.data.dataset.listing`.
"""

from __future__ import annotations

import re

NULL = "__HIVE_DEFAULT_PARTITION__"  # the value of a row without one, as Hive, Spark, Trino and pyarrow write it

INTEGER = re.compile(r"-?[0-9]+")
_ROOT, _INTEGERS, _TEXT, _NULLS = range(4)

Key = list[tuple[str, int, int, str]]


def folder_of(path: str) -> str:
    """The folder of a file below the root of a part: its partition."""
    return path.rpartition("/")[0]


def partition_key(folder: str) -> Key:
    """What partitions are ordered by: the names of the folders, from the root down.

    Integers count as numbers (hour=8 comes before hour=10) and stand before other values of their column, which are
    ordered as text; rows without a value come last. The key of a folder depends on nothing but its name, so that
    folders that come later change nothing about the order of the others.
    """
    return [_key_of(name) for name in folder.split("/")]


def _key_of(name: str) -> tuple[str, int, int, str]:
    if not name:  # no folder at all
        return "", _ROOT, 0, ""
    column, equals, value = name.rpartition("=")
    if value == NULL:
        return column + equals, _NULLS, 0, name
    if INTEGER.fullmatch(value):
        return column + equals, _INTEGERS, int(value), name
    return (column + equals if equals else name), _TEXT, 0, name


def is_null(folder: str) -> bool:
    """Whether a folder holds rows without a value of a partition column."""
    return any(name.rpartition("=")[2] == NULL for name in folder.split("/"))
