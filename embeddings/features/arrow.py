"""Arrow columns as flat NumPy arrays: chunks, slices, nulls and every column type that Parquet brings.

Buffers are viewed, not copied, where they hold what is asked for. What the numbers mean is for `feature_transforms`
and the ID transforms.
"""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from configs.errors import UserError

_ONES = np.broadcast_to(np.int32(1), 1 << 20)  # a part of it takes a tenth of the time of a new one


def single_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array, of its storage where its type is an extension. Only several chunks are copied."""
    if isinstance(column, pa.ChunkedArray):
        if isinstance(column.type, pa.BaseExtensionType):  # Arrow cannot join the chunks of every extension
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def empty_table(schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    """No rows of `columns` as `schema` has them, to see whether their types can be used."""
    return pa.schema({column: _stored(schema.field(column).type) for column in columns}).empty_table()


def _stored(kind: pa.DataType) -> pa.DataType:
    """A type as it is stored: Arrow makes no empty array of every extension type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _stored(kind.storage_type)
    if pt.is_struct(kind):
        return pa.struct({field.name: _stored(field.type) for field in kind})
    if is_list(kind) and _stored(kind.value_type) != kind.value_type:
        return pa.list_(_stored(kind.value_type))
    return kind


def is_list(kind: pa.DataType) -> bool:
    """Whether `kind` is a list of any sort."""
    views = pt.is_list_view(kind) or pt.is_large_list_view(kind)
    return pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind) or views


def is_text(kind: pa.DataType) -> bool:
    """Whether `kind` is a string of any sort."""
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether `kind` is a byte string of any sort."""
    binary = pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind)
    return binary or pt.is_fixed_size_binary(kind)


def id_kind(kind: pa.DataType) -> str:
    """What the IDs of a column are to a hash: "text", "integers", "nothing" (nulls only) or the type itself."""
    kind = _stored(kind)
    if is_list(kind) or pt.is_dictionary(kind):
        return id_kind(kind.value_type)
    if is_text(kind) or is_bytes(kind):
        return "text"
    if pt.is_integer(kind) or pt.is_boolean(kind) or (pt.is_decimal(kind) and kind.scale == 0):
        return "integers"
    return "nothing" if pt.is_null(kind) else str(kind)


def refuse(kind: pa.DataType, where: str, wanted: str, remedy: str) -> NoReturn:
    """Raises the UserError for a column of a type that cannot be used."""
    raise UserError(f"{where} has type {kind}, which is not {wanted}\n{remedy}")


def flatten(array: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    """The elements [N] of a column of R rows, and how many each row has (int32 [R]).

    A null list has none. A scalar column has one element per row, a null among them a null element: `one_each` tells.
    """
    if pt.is_list(array.type) or pt.is_large_list(array.type):
        return _flatten_offsets(array)
    if pt.is_fixed_size_list(array.type) and not array.null_count:
        return _plain(array.flatten()), np.full(len(array), array.type.list_size, np.int32)
    if is_list(array.type):
        lengths = pc.fill_null(pc.list_value_length(array), 0)  # pyright: ignore[reportAttributeAccessIssue]
        return _plain(array.flatten()), lengths.to_numpy(zero_copy_only=False).astype(np.int32)
    return _plain(array), ones(len(array))


def ones(count: int) -> npt.NDArray[np.int32]:
    """The lengths of `count` single values: one number that takes no memory."""
    return _ONES[:count] if count <= len(_ONES) else np.broadcast_to(np.int32(1), count)


def one_each(lengths: npt.NDArray[np.int32]) -> bool:
    """Whether `lengths` are those that `flatten` gives a scalar column: one number that takes no memory."""
    return lengths.strides == (0,)


def _flatten_offsets(array: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    offsets = array.offsets.to_numpy()
    lengths = np.diff(offsets).astype(np.int32, copy=False)
    if array.null_count:
        null = ~valid_mask(array)
        if lengths[null].any():  # a null list may cover elements; flatten() leaves them out, at the cost of a copy
            return _plain(array.flatten()), np.where(null, np.int32(0), lengths)
    return _plain(array.values.slice(offsets[0], offsets[-1] - offsets[0])), lengths


def _plain(values: pa.Array) -> pa.Array:
    """Elements without an extension type, dictionary-encoded only where that saves hashing strings."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if isinstance(values, pa.DictionaryArray):
        words = values.dictionary
        useful = is_text(words.type) and not words.null_count and len(words) <= len(values)
        return values if useful else _plain(values.dictionary_decode())
    if pt.is_string_view(values.type) or pt.is_binary_view(values.type):  # which Arrow cannot filter
        return values.cast(pa.large_string() if pt.is_string_view(values.type) else pa.large_binary())
    return values


def valid_mask(array: pa.Array) -> npt.NDArray[np.bool_]:
    """True where `array` is not null."""
    return array.is_valid().to_numpy(zero_copy_only=False)


def integers(values: pa.Array, where: str) -> npt.NDArray[np.int64] | None:
    """Integer elements without nulls as int64, or None when they are no integers.

    Booleans count, and decimals without decimal places. An unsigned 64-bit integer keeps its bits.
    """
    kind = values.type
    if pt.is_integer(kind):
        numbers = values.to_numpy(zero_copy_only=True)
        return numbers.view(np.int64) if kind == pa.uint64() else numbers.astype(np.int64, copy=False)
    if pt.is_boolean(kind):
        return values.to_numpy(zero_copy_only=False).astype(np.int64)
    if pt.is_decimal(kind) and kind.scale == 0:
        words = _decimal_words(values)
        if words is None or (words[:, 1] != words[:, 0] >> 63).any():
            raise UserError(f"{where} has a decimal beyond 64 bits\nWrite the column as strings.")
        return np.ascontiguousarray(words[:, 0])
    return None


def byte_slices(values: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Strings or byte strings without nulls: all their bytes, where in these each starts, and its length."""
    kind = values.type
    if not (pt.is_string(kind) or pt.is_binary(kind) or pt.is_large_string(kind) or pt.is_large_binary(kind)):
        values = values.cast(pa.large_binary())  # views and fixed sizes
    wide = pt.is_large_string(values.type) or pt.is_large_binary(values.type)
    _, offsets, data = values.buffers()
    if not len(values):
        return np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int64)
    ends = np.frombuffer(offsets, np.int64 if wide else np.int32)[values.offset : values.offset + len(values) + 1]
    first, ends = int(ends[0]), ends.astype(np.int64)
    used = np.frombuffer(data, np.uint8)[first : int(ends[-1])] if data else np.empty(0, np.uint8)
    return used, ends[:-1] - first, np.diff(ends)


def _decimal_words(values: pa.Array) -> npt.NDArray[np.int64] | None:
    """Decimals as 128-bit integers without their point: low and high words [N, 2]; None if they have more digits.

    Arrow's cast of a 32-bit decimal to an integer refuses what fits, so every width goes this way.
    """
    try:
        wide = values.cast(pa.decimal128(38, values.type.scale))
    except pa.ArrowInvalid:
        return None
    words = np.frombuffer(wide.buffers()[1] or b"", np.int64).reshape(-1, 2)
    return words[wide.offset : wide.offset + len(wide)]


_EXACT_INTEGER, _EXACT_POWER = 2**53, 22  # up to these, integers and powers of ten are exact as doubles


def _decimals(values: pa.Array) -> npt.NDArray[np.float64]:
    """Decimals [N] as the nearest doubles: what a double column holds of the same number. A null is any number.

    Arrow's own cast, for what is too long, is off in the last bit for every eighth number with two places.
    """
    words, scale = _decimal_words(values), values.type.scale
    if words is not None and 0 <= scale <= _EXACT_POWER:
        unscaled = words[:, 0]
        is_exact = (words[:, 1] == unscaled >> 63) & (np.abs(unscaled) <= _EXACT_INTEGER)
        if (is_exact | ~valid_mask(values)).all():
            return unscaled / 10.0**scale
    return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _is_short(kind: pa.DataType) -> bool:
    return pt.is_integer(kind) and kind.bit_width < 32


def floats(values: pa.Array, default: float, where: str) -> npt.NDArray[np.floating | np.integer]:
    """Numeric elements [N], nulls as `default`, in a type of at least 32 bits that holds them all.

    Raises:
        UserError: the column holds no numbers.
    """
    kind = values.type
    if pt.is_decimal(kind):
        values = pa.array(_decimals(values), mask=~valid_mask(values))
    elif pt.is_integer(kind) and values.null_count:  # `default` may be no integer
        values = values.cast(pa.float64(), safe=False)
    elif pt.is_boolean(kind) or pt.is_null(kind) or pt.is_float16(kind) or _is_short(kind):
        values = values.cast(pa.float32())
    elif not (pt.is_floating(kind) or pt.is_integer(kind)):
        remedy = "Write a number instead: of a date or a time for example the hour, the weekday or an age in days."
        refuse(kind, where, "a number", remedy)
    if values.null_count:
        valid = valid_mask(values)
        filled = values.to_numpy(zero_copy_only=False).copy()
        filled[~valid] = default
        return filled
    return values.to_numpy(zero_copy_only=True)
