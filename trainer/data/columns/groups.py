"""The group of every row, such as its user, for metrics that rank inside groups (GAUC).

Integers stand for themselves, strings for their 64-bit hash (`embeddings.features.xxh64`). R rows.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.errors import UserError
from embeddings.features.arrow import byte_slices, integers, is_bytes, is_text, refuse, single_array
from embeddings.features.xxh64 import hash_bytes


def group_ids(table: pa.Table, column: str, where: str) -> npt.NDArray[np.int64]:
    """Column `column` as group ids [R].

    Raises:
        UserError: a group is missing, or the column holds neither integers nor strings.
    """
    array, what = single_array(table[column]), f"{where}: column {column!r}"
    if array.null_count:
        row = array.is_null().index(True).as_py()
        raise UserError(
            f"{where}, row {row}: column {column!r} is null, which is no group\n"
            "Write a group for every row, or leave data.group_column out."
        )
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if is_text(array.type) or is_bytes(array.type):
        return hash_bytes(*byte_slices(array)).view(np.int64)
    numbers = integers(array, what)
    if numbers is None:
        refuse(array.type, what, "a group", "Give data.group_column a column of integers or strings.")
    return numbers
