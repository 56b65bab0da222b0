"""Where a mistake is: messages name a row as it is counted in its file or row group, not in a part of that."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from configs.errors import UserError

_TO_TRAIN = "\nTo train with these, "


@dataclass(frozen=True)
class Origin:
    """Where a table of rows is from, as "part-0.parquet, row group 3", and which row of that its first one is."""

    name: str
    first_row: int = 0

    def column(self, column: str) -> str:
        """A column as messages name it."""
        return f"{self.name}: column {column!r}"

    def cell(self, row: int, column: str) -> str:
        """The place of a value in row `row` of the table."""
        return f"{self.name}, row {self.first_row + row}: column {column!r}"


class ElementError(UserError):
    """An element of a column that cannot be used.

    Attributes:
        place: of the element among all of the column.
        fault: what is wrong with it, and what to do in further lines.
    """

    def __init__(self, where: str, place: int, fault: str) -> None:
        super().__init__(f"{where} {fault}")
        self.place, self.fault = place, fault


def row_of(place: int, lengths: npt.NDArray[np.int32]) -> int:
    """The row that has element `place`, of rows with `lengths` [R] elements."""
    return int(np.searchsorted(np.cumsum(lengths), place, side="right"))


def to_train(remedy: str) -> str:
    """A line of a message for whoever trains, after the one that says which values are taken."""
    return _TO_TRAIN + remedy


def for_callers(message: str) -> str:
    """A message without what only whoever trains can do."""
    return message.partition(_TO_TRAIN)[0]
