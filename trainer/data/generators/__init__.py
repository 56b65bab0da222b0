"""Synthetic data, one module a kind, chosen by the name of its module: `build`, and `Settings` if it has any.

`trainer.data.generators._generate` writes what a generator gives.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

STRUCTURE = 2**32 - 1
"""In place of a part's number: the draws that all parts share."""


class Generator(Protocol):
    """(seed, part, rows, rows_per_file) -> relative file names and their rows, one file at a time.

    `part` is 0 for training, 1 for validation. The same arguments give the same rows; parts share the planted
    structure and not a single random draw.
    """

    def __call__(self, seed: int, part: int, rows: int, rows_per_file: int, /) -> Iterator[tuple[str, pa.Table]]: ...


class GeneratorModule(Protocol):
    """What a module of this package has."""

    def build(self, settings: Any, /) -> Generator: ...


def random_stream(seed: int, part: int, file: int = 0) -> np.random.Generator:
    """Independent random numbers for every (seed, part, file)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, part, file))))


def plain_files(rows: int, rows_per_file: int) -> Iterator[tuple[int, str, int]]:
    """(number, name, rows) of the files of a part without partitions."""
    for number, start in enumerate(range(0, rows, rows_per_file)):
        yield number, f"part-{number:05}.parquet", min(rows_per_file, rows - start)
