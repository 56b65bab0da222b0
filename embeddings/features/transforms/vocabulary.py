"""IDs listed in a text file, one a line: line n (from 1) is row n of the table, every other ID row 0.

Integer columns compare the lines as numbers, string columns as text.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.errors import UserError
from configs.schema import SparseFeature, TableConfig
from embeddings.features.arrow import integers, is_text, refuse


class Vocabulary:
    """The lines of a vocabulary file, looked up as text or as integers."""

    def __init__(self, path: str) -> None:
        """Reads `path` (UTF-8). UserError: unreadable, or an empty or a repeated line."""
        try:
            self.lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"vocabulary {path} cannot be read: {error}\nIt is a UTF-8 file with one ID a line."
            ) from None
        self.path = path
        self.row_of: dict[str, int] = {}
        for number, line in enumerate(self.lines, 1):
            if not line or line in self.row_of:
                fault = f"repeats line {self.row_of[line]}" if line else "is empty"
                raise UserError(f"vocabulary {path}: line {number} {fault}: {line!r}\nWrite every ID once, one a line.")
            self.row_of[line] = number

    @cached_property
    def sorted_integers(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The lines as sorted integers, and the row of each."""
        try:
            numbers = np.array([int(line) for line in self.lines], np.int64)
        except (ValueError, OverflowError) as error:
            raise UserError(
                f"vocabulary {self.path} of an integer column: {error}\nWrite integers, one a line."
            ) from None
        order = np.argsort(numbers, kind="stable")
        return numbers[order], order.astype(np.int64) + 1

    def text_rows(self, values: pa.Array) -> npt.NDArray[np.int64]:
        """String values [N] -> rows; each different string is looked up once."""
        words = values if isinstance(values, pa.DictionaryArray) else values.dictionary_encode()
        rows = [self.row_of.get(word, 0) for word in words.dictionary.to_pylist()]
        return np.array(rows, np.int64)[words.indices.to_numpy()]

    def integer_rows(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Integer values [N] -> rows, by binary search."""
        known, rows = self.sorted_integers
        if not len(known):
            return np.zeros(len(numbers), np.int64)
        place = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        return np.where(known[place] == numbers, rows[place], np.int64(0))


def build(name: str, feature: SparseFeature, table: TableConfig) -> Callable[[pa.Array, str], npt.NDArray[np.int64]]:
    """Values -> the number of their line in `feature.vocabulary`; 0 for IDs that are not there."""
    if feature.vocabulary is None:
        raise UserError(f"features.{name}: transform vocabulary has no file\nSet features.{name}.vocabulary=PATH.")
    vocabulary = Vocabulary(feature.vocabulary)
    needed = len(vocabulary.lines) + 1
    if needed > table.num_embeddings:
        raise UserError(
            f"features.{name}: {feature.vocabulary} has {needed - 1:,} IDs, table {feature.table!r} "
            f"{table.num_embeddings:,} rows\nSet tables.{feature.table}.num_embeddings to at least {needed}: row 0 is "
            "for IDs that the file lacks."
        )

    def transform(values: pa.Array, where: str) -> npt.NDArray[np.int64]:
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        if is_text(kind):
            return vocabulary.text_rows(values)
        numbers = integers(values, where)
        if numbers is None:
            refuse(kind, where, "an ID", "Write integers or strings.")
        return vocabulary.integer_rows(numbers)

    return transform
