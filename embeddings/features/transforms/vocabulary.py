r"""IDs listed in a text file, one per line: line n (from 1) is row n of the table, every other ID row 0.

Lines end with \n, \r\n or \r; a byte order mark is skipped. Integer columns compare the lines as numbers, columns of
strings or bytes as UTF-8 text: bytes that are not UTF-8 are an ID that the file lacks.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.choice_settings import ChoiceSettings
from configs.errors import UserError
from configs.schema import SparseFeature, TableConfig
from embeddings.features.arrow import integers, is_bytes, is_text, refuse
from embeddings.features.transforms import Transform

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,20}\s*")


class Vocabulary:
    """The lines of a vocabulary file, looked up as text or as integers."""

    def __init__(self, path: str) -> None:
        """Reads `path` (UTF-8). UserError: unreadable, without a line, or with an empty, a repeated or a binary one."""
        try:
            text = Path(path).read_text(encoding="utf-8-sig")  # which makes \n of every end of a line
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"vocabulary {path} cannot be read: {error}\nIt is a UTF-8 file with one ID per line."
            ) from None
        self.path = path
        self.lines = text.removesuffix("\n").split("\n") if text else []
        if not self.lines:
            raise UserError(f"vocabulary {path} is empty: every ID would be an unknown one\nWrite one ID per line.")
        self.row_of: dict[bytes, int] = {}
        for number, line in enumerate(self.lines, 1):
            word = line.encode()
            if not line or word in self.row_of:
                self._refuse(number, f"repeats line {self.row_of[word]}" if line else "is empty")
            if "\0" in line:  # UTF-16 without a byte order mark reads as UTF-8 with zero bytes
                self._refuse(number, "has a zero byte, as UTF-16 has")
            self.row_of[word] = number

    def _refuse(self, number: int, fault: str) -> NoReturn:
        raise UserError(
            f"vocabulary {self.path}: line {number} {fault}: {self.lines[number - 1]!r}\n"
            "Write every ID once, one per line."
        )

    @cached_property
    def sorted_integers(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The lines as sorted integers, and the row of each."""
        numbers = np.empty(len(self.lines), np.int64)
        for place, line in enumerate(self.lines):
            number = int(line) if _INTEGER.fullmatch(line) else 2**64
            if not -(2**63) <= number < 2**64:
                raise UserError(
                    f"vocabulary {self.path}: line {place + 1} is {line!r}, which is no integer of 64 bits\n"
                    "The column has integers: write integers, one per line."
                )
            numbers[place] = number - 2**64 if number >= 2**63 else number  # an unsigned one keeps its bits
        order = np.argsort(numbers, kind="stable")
        known = numbers[order]
        same = np.flatnonzero(known[1:] == known[:-1])
        if len(same):
            self._refuse(int(order[same[0] + 1]) + 1, f"is the same number as line {int(order[same[0]]) + 1}")
        return known, order.astype(np.int64) + 1

    def text_rows(self, values: pa.Array) -> npt.NDArray[np.int64]:
        """Strings or byte strings [N] -> rows; each different one is looked up once."""
        words = values if isinstance(values, pa.DictionaryArray) else values.dictionary_encode()
        rows = [self.row_of.get(word, 0) for word in words.dictionary.cast(pa.large_binary()).to_pylist()]
        return np.array(rows, np.int64)[words.indices.to_numpy()]

    def integer_rows(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Integer values [N] -> rows, by binary search."""
        known, rows = self.sorted_integers
        place = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        return np.where(known[place] == numbers, rows[place], np.int64(0))


def build(settings: ChoiceSettings, name: str, feature: SparseFeature, table: TableConfig) -> Transform:
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
        if is_text(kind) or is_bytes(kind):
            return vocabulary.text_rows(values)
        numbers = integers(values, where)
        if numbers is None:
            refuse(kind, where, "an ID", "Write integers or strings.")
        return vocabulary.integer_rows(numbers)

    return transform
