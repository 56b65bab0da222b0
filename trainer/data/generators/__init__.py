"""Synthetic data, one module a kind, chosen by the name of its module.

A generator has two functions, and `trainer.data.generators._generate` writes what they give:

    parse(options: Mapping[str, Any]) -> Options
        The generator's own options, checked; `parse_options` does it for a dataclass.
    files(options: Options, seed: int, part: int, rows: int, rows_per_file: int) -> Iterator[tuple[str, pa.Table]]
        Relative file names and their rows, one file at a time. `part` is 0 for training, 1 for validation. The same
        arguments give the same rows; parts share the planted structure and not a single random draw.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from configs.errors import UserError

OptionsT = TypeVar("OptionsT")

STRUCTURE = 2**32 - 1
"""In place of a part's number: the draws that all parts share."""


Ranges = Mapping[str, tuple[float, float]]


def parse_options(kind: str, options_type: type[OptionsT], options: Mapping[str, Any], ranges: Ranges) -> OptionsT:
    """An instance of the dataclass `options_type`, whose defaults also say the type of every option.

    Args:
        ranges: the least and the largest value of an option.

    Raises:
        UserError: an unknown option, or a value that is not a number of the right type and in its range.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(options_type)}  # type: ignore[arg-type]
    for name, value in options.items():
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(defaults)}"
            raise UserError(f"unknown option {name!r} of the generator {kind}\n{hint}")
        wanted = type(defaults[name])
        if isinstance(value, bool) or not isinstance(value, int if wanted is int else (int, float)):
            raise UserError(
                f"option {name} of the generator {kind} is {value!r}, not a number\n"
                f"give a value such as the default, {defaults[name]}"
            )
    parsed = options_type(**options)
    for name, (low, high) in ranges.items():
        value = getattr(parsed, name)
        if not low <= value <= high:
            raise UserError(f"option {name} of the generator {kind} is {value}\ngive a value from {low:g} to {high:g}")
    return parsed


def random_stream(seed: int, part: int, file: int = 0) -> np.random.Generator:
    """Independent random numbers for every (seed, part, file)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, part, file))))


def plain_files(rows: int, rows_per_file: int) -> Iterator[tuple[int, str, int]]:
    """(number, name, rows) of the files of a part without partitions."""
    for number, start in enumerate(range(0, rows, rows_per_file)):
        yield number, f"part-{number:05}.parquet", min(rows_per_file, rows - start)
