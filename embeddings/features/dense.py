"""Dense columns as numbers: nulls filled, lists as rows of a matrix, the feature's transform applied.

R rows of the table at hand.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.errors import UserError
from configs.schema import DenseFeature
from embeddings.features.arrow import flatten, floats, is_list, one_each, single_array, valid_mask
from embeddings.features.places import Origin, to_train


def dense_numbers(values: pa.ChunkedArray, feature: DenseFeature, column: str, origin: Origin) -> npt.NDArray:
    """A dense column as [R, width] numbers of its own type, nulls filled."""
    array, what = single_array(values), origin.column(column)
    if pa.types.is_null(array.type):
        return np.full((len(array), feature.width), feature.default)
    elements, lengths = flatten(array)
    if feature.width == 1 and one_each(lengths):
        return floats(elements, feature.default, what).reshape(-1, 1)
    given = valid_mask(array) if array.null_count else np.ones(len(array), np.bool_)
    wrong = (lengths != feature.width) & given
    if wrong.any():
        row = int(np.argmax(wrong))
        wanted = "one number" if feature.width == 1 else f"{feature.width} numbers"
        raise UserError(
            f"{origin.cell(row, column)} has {lengths[row]} numbers, not {feature.width}\nGive {wanted} in each row."
            + to_train("set the feature's width to the length of its lists, which must all be equal.")
        )
    if not is_list(array.type) and not given.any():  # each null of a column of single numbers is an element
        elements = elements.slice(0, 0)
    numbers = floats(elements, feature.default, what).reshape(-1, feature.width)
    if given.all():
        return numbers
    filled = np.full((len(array), feature.width), feature.default, np.result_type(numbers, np.float32))
    filled[given] = numbers
    return filled


def normalize(numbers: npt.NDArray, feature: DenseFeature) -> npt.NDArray:
    """Applies the feature's transform in the column's own precision: float32 would round large numbers first."""
    if feature.transform == "log1p":
        return np.copysign(np.log1p(np.abs(numbers)), numbers)
    if feature.transform == "standardize":
        return (numbers - feature.mean) / feature.std
    return numbers
