"""Columns of one number a row, and the refusal of a wrong one with its place. R rows."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.errors import UserError
from embeddings.features.arrow import flatten, floats, is_list, refuse, single_array

Vector = npt.NDArray[np.float32]


def numbers(table: pa.Table, column: str, where: str) -> Vector:
    """Column `column` [R]; NaN for a null, infinite for a number beyond float32.

    Raises:
        UserError: the column holds no numbers.
    """
    array = single_array(table[column])
    what = f"{where}: column {column!r}"
    if is_list(array.type):
        refuse(array.type, what, "a number", "Write one number a row.")
    values = floats(flatten(array)[0], np.nan, what)
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def refuse_first(wrong: npt.NDArray[np.bool_], table: pa.Table, column: str, where: str, why: str, remedy: str) -> None:
    """Names the first row of `wrong` [R], if there is one.

    Raises:
        UserError: there is one.
    """
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(f"{where}, row {row}: column {column!r} is {table[column][row]}, {why}\n{remedy}")
