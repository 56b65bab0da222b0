"""Public data sets from their original files, one module a data set, chosen by the name of its module.

A module has `build`, and `Settings` if it has any; its docstring lists the columns that are written.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.choice_settings import settings_of
from configs.choices import load
from configs.errors import UserError


class Importer(Protocol):
    """(source, out): the files of the folder `source`, as they are published, -> Parquet parts.

    They are `out`/train, `out`/validation and, where there is one, `out`/test; or nothing at all if it fails. A summary
    goes to standard error.

    Raises:
        UserError: a file is missing or not what it should be, or `out` exists already.
    """

    def __call__(self, source: str, out: str, /) -> None: ...


class ImporterModule(Protocol):
    """What a module of this package has."""

    def build(self, settings: Any, /) -> Importer: ...


def importer(name: str, values: Mapping[str, Any]) -> Importer:
    """The importer `name`, such as census_income or census-income, with its own settings.

    Raises:
        UserError: there is no such importer, or it has no such setting.
    """
    module = load("trainer.data.importers", name.replace("-", "_"))
    return cast(ImporterModule, module).build(settings_of(module, values, name))


def find_file(source: str, *names: str, download: str) -> Path:
    """The first of `names` that `source` or its sub-folder `data` holds.

    Raises:
        UserError: none is there; `download` says where to get it.
    """
    for folder in (Path(source), Path(source) / "data"):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise UserError(f"{source} has no file {' or '.join(names)}\ndownload the original files from {download}")


def left_join(values: pa.Array | pa.ChunkedArray, table: pa.Table, key: str) -> pa.Table:
    """The row of `table` whose `key` equals each of `values`, in their order; a row of nulls where there is none."""
    return table.take(pc.index_in(values, value_set=table.column(key)))  # pyright: ignore[reportAttributeAccessIssue]


def split_strings(strings: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    """Each string as a list of strings; null stays null."""
    return pc.split_pattern(strings, separator)  # pyright: ignore[reportAttributeAccessIssue]


def print_summary(heading: str, parts: Mapping[str, pa.Table], labels: Sequence[str]) -> None:
    """To standard error: the heading, then one line a part with its rows and the mean of every label."""
    lines = [heading]
    for part, table in parts.items():
        means = [f"{label} {np.nanmean(table.column(label).to_numpy()):.5f}" for label in labels]
        lines.append(f"{part:>10}  {table.num_rows:>9,} rows  {'  '.join(means)}")
    sys.stderr.write("\n".join(lines) + "\n")
