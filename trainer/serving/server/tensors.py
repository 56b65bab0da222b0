"""Tensors of the Open Inference Protocol as columns of raw values.

    column                    tensor                                       shape
    one value per row         NAME                                         [B] or [B, 1]
    W numbers per row         NAME                                         [B, W]
    a list per row            NAME, every list as long as the others       [B, L]
                              NAME, all lists end to end, NAME.lengths     [N] and [B]
                              NAME, padded at the end, NAME.lengths        [B, L] and [B]
    missing values            NAME.valid beside any of them, BOOL          [B]

B rows, L and N elements. A null list is an empty one. Numbers may come as any numeric datatype: what training had is
compared by `trainer.serving.columns`, as for files.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from configs.errors import UserError
from configs.schema import DenseFeature
from embeddings.features.arrow import is_bytes, is_list, is_text
from trainer.serving.bundle import Bundle
from trainer.serving.columns import element_type
from trainer.serving.server.calls import Column, ColumnCall

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""The protocol's datatypes but BYTES, by their name: little-endian, as all of its numbers."""
LENGTHS, VALID = ".lengths", ".valid"
_MOST_EMPTY = 2**20


@dataclass(frozen=True)
class Input:
    """A tensor that a model takes, or could take. width: numbers per row; 0 for lists."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    column: str
    role: Literal["values", "lengths", "valid"]
    width: int = 1


@dataclass(frozen=True)
class Given:
    """A tensor of a request. values: flat, in row-major order; Arrow where they came as JSON or are BYTES."""

    datatype: str
    shape: tuple[int, ...]
    values: npt.NDArray | pa.Array


def inputs_of(bundle: Bundle) -> dict[str, Input]:
    """All tensors that a bundle can be given, by name."""
    types = {field.name: field.type for field in bundle.schema or []}
    widths = {f.column or n: f.width for n, f in bundle.signature.features.items() if isinstance(f, DenseFeature)}
    inputs = []
    for column in bundle.transforms.columns:
        kind = types.get(column, pa.int64() if column in bundle.id_columns else pa.float32())
        datatype, width = datatype_of(element_type(kind)), widths.get(column, 0 if is_list(kind) else 1)
        shape = (-1, width or -1)
        inputs.append(Input(column, datatype, shape, column, "values", width))
        if not width:
            inputs.append(Input(column + LENGTHS, "INT32", (-1,), column, "lengths"))
        inputs.append(Input(column + VALID, "BOOL", (-1,), column, "valid"))
    return {one.name: one for one in inputs}


def datatype_of(kind: pa.DataType) -> str:
    """The protocol's name of an Arrow type of single values."""
    if is_text(kind) or is_bytes(kind):
        return "BYTES"
    if pt.is_boolean(kind):
        return "BOOL"
    if pt.is_integer(kind):
        return str(kind).upper()
    if pt.is_floating(kind):
        return f"FP{kind.bit_width}"
    return "FP64" if pt.is_decimal(kind) and kind.scale else "INT64"


def call_of(given: Mapping[str, Given], inputs: Mapping[str, Input], broadcast: bool = False) -> ColumnCall:
    """The call that a request's tensors ask for.

    Args:
        broadcast: tensors with one row stand for all rows of the others.

    Raises:
        UserError: a tensor is missing or unknown, has another shape, or does not fit the others.
    """
    for name in given:
        if name not in inputs:
            close = get_close_matches(name, inputs, 1)
            raise UserError(
                f"{name!r} is not an input of this model\n"
                + (f"Did you mean {close[0]!r}?" if close else "The model's metadata lists its inputs.")
            )
    columns, rows = {}, {}
    for name, one in inputs.items():
        if one.role != "values":
            continue
        if name not in given:
            raise UserError(f"there is no input {name!r}\nSend every column of training; {name}{VALID} marks nulls.")
        columns[name] = _column(one, given[name], given.get(name + LENGTHS), given.get(name + VALID))
        rows[name] = len(columns[name])
    count = max(rows.values(), default=0)
    for name, number in rows.items():
        if number != count and not (broadcast and number == 1):
            most = next(other for other, size in rows.items() if size == count)
            raise UserError(
                f"input {name!r} has {number} rows, {most!r} has {count}\nSend as many of each, or one for all rows "
                "with the request's parameter broadcast."
            )
    if not count:
        raise UserError("the request has no rows\nSend one row or more.")
    shared = frozenset(name for name, number in rows.items() if number == 1 < count)
    return ColumnCall(count, columns, shared)


def _column(one: Input, given: Given, lengths: Given | None, valid: Given | None) -> Column:
    """One column of a call."""
    shape = given.shape
    if one.width == 1 and (len(shape) == 1 or shape[1:] == (1,)):
        values: Column = given.values
    elif one.width > 1 and len(shape) == 2 and shape[1] == one.width:
        values = pa.FixedSizeListArray.from_arrays(_array(given.values), one.width)
    elif not one.width and (len(shape) == 2 or (len(shape) == 1 and lengths is not None)):
        values = _lists(one, given, lengths)
    else:
        wanted = "[B, L], or [N] beside its lengths" if not one.width else list(one.shape)
        raise UserError(f"input {one.name!r} has shape {list(shape)}, the model takes {wanted}")
    return values if valid is None else _with_nulls(one, values, valid)


def _lists(one: Input, given: Given, lengths: Given | None) -> pa.Array:
    values, padded = _array(given.values), given.shape[1] if len(given.shape) == 2 else None
    counts = np.full(given.shape[0], padded, np.int64) if lengths is None else _lengths(one, lengths)
    if padded is not None and lengths is not None:
        if len(counts) != given.shape[0] or (counts > padded).any():
            raise UserError(f"input {one.name!r} of shape {list(given.shape)} has lengths {_few(counts)}\n{_FIT}")
        values = values.filter(pa.array((np.arange(padded)[None, :] < counts[:, None]).reshape(-1)))
    if counts.sum() != len(values):
        raise UserError(f"input {one.name!r} has {len(values)} elements, its lengths add up to {counts.sum()}\n{_FIT}")
    offsets = np.concatenate(([0], np.cumsum(counts)))
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)


_FIT = "Send the number of elements of each row."


def _lengths(one: Input, given: Given) -> npt.NDArray[np.int64]:
    counts = given.values if isinstance(given.values, np.ndarray) else given.values.to_numpy(zero_copy_only=False)
    if given.datatype not in DTYPES or counts.dtype.kind not in "iu":
        raise UserError(f"input {one.name + LENGTHS!r} has datatype {given.datatype}\nSend INT32 or INT64.")
    if len(given.shape) != 1 and given.shape[1:] != (1,):
        raise UserError(f"input {one.name + LENGTHS!r} has shape {list(given.shape)}, the model takes [B]")
    if len(counts) and (counts.min() < 0 or counts.max() > 2**31):
        raise UserError(f"input {one.name + LENGTHS!r} has lengths {_few(counts)}\n{_FIT}")
    return counts.astype(np.int64)


def _few(counts: npt.NDArray) -> str:
    return f"{min(counts, default=0)} to {max(counts, default=0)} in {len(counts)} rows"


def _with_nulls(one: Input, values: Column, valid: Given) -> pa.Array:
    flags = valid.values if isinstance(valid.values, np.ndarray) else valid.values.to_numpy(zero_copy_only=False)
    if flags.dtype != np.bool_ or len(flags) != len(values):
        raise UserError(
            f"input {one.name + VALID!r} has {len(flags)} values of {valid.datatype} for {len(values)} rows\n"
            "Send one BOOL per row: false where the value is missing."
        )
    array = _array(values)
    if not one.width:
        counts = np.where(flags, np.diff(array.offsets.to_numpy()), 0)
        keep = np.repeat(flags, np.diff(array.offsets.to_numpy()))
        offsets = pa.array(np.concatenate(([0], np.cumsum(counts))))
        return pa.LargeListArray.from_arrays(offsets, array.values.filter(pa.array(keep)), mask=pa.array(~flags))
    if one.width > 1:
        return pa.FixedSizeListArray.from_arrays(array.values, one.width, mask=pa.array(~flags))
    return array.take(pa.array(np.arange(len(flags)), mask=~flags))


def _array(values: Column) -> pa.Array:
    return pa.array(values) if isinstance(values, np.ndarray) else values


def numbers_of(name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview) -> Given:
    """A tensor that came as bytes. UserError: they are not as many as its shape says, or no text."""
    count = elements_of(name, shape)
    if datatype == "BYTES":
        return Given(datatype, tuple(shape), _texts(name, data, count))
    dtype = dtype_of(name, datatype)
    if len(data) != count * dtype.itemsize:
        raise UserError(
            f"input {name!r} has {len(data)} bytes, {datatype} of shape {list(shape)} has {count * dtype.itemsize}"
        )
    values = np.frombuffer(data, dtype)
    if datatype == "BOOL" and count and values.view(np.uint8).max() > 1:
        raise UserError(f"input {name!r} holds a BOOL that is neither 0 nor 1")
    return Given(datatype, tuple(shape), values)


def elements_of(name: str, shape: Sequence[int]) -> int:
    """How many elements a tensor of `shape` has. UserError: it is no shape."""
    count = 1
    for size in shape:
        if type(size) is not int or not 0 <= size < 2**31:
            raise UserError(f"input {name!r} has shape {list(shape)!r}\nSend one number from 0 on for each dimension.")
        count *= size
    if not shape or count >= 2**40:
        raise UserError(f"input {name!r} has shape {list(shape)!r}\nThe first dimension is the number of rows.")
    if not count and max(shape) > _MOST_EMPTY:  # a few bytes of request must not ask for gigabytes of empty rows
        raise UserError(
            f"input {name!r} has shape {list(shape)!r}\nSend at most {_MOST_EMPTY:,} rows without elements."
        )
    return count


def dtype_of(name: str, datatype: str) -> np.dtype:
    """UserError: there is no such datatype."""
    try:
        return DTYPES[datatype]
    except (KeyError, TypeError):
        known = ", ".join([*DTYPES, "BYTES"])
        raise UserError(f"input {name!r} has datatype {datatype!r}\nThere are: {known}.") from None


def _texts(name: str, data: bytes | memoryview, count: int) -> pa.Array:
    """BYTES: each element is its length in four bytes, little-endian, and then itself."""
    ends, place = [], 0
    size_of = struct.Struct("<I").unpack_from
    try:
        for _ in range(count):
            place += 4 + size_of(data, place)[0]
            ends.append(place)
    except struct.error:
        place = len(data) + 1
    if place > len(data):
        whole = sum(end <= len(data) for end in ends)
        raise UserError(f"input {name!r} ends in the middle of element {whole} of {count}")
    if place < len(data):
        raise UserError(f"input {name!r} has {len(data) - place} bytes after its {count} elements")
    offsets = np.array([0, *ends], np.int64) - 4 * np.arange(count + 1)
    is_text = np.ones(len(data), np.bool_)
    is_text[(np.array([0, *ends[:-1]], np.int64)[: len(ends), None] + np.arange(4)).reshape(-1)] = False
    elements = np.frombuffer(data, np.uint8)[is_text]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(elements)]
    found = pa.Array.from_buffers(pa.large_string(), count, buffers)
    try:
        found.validate(full=True)
    except pa.ArrowInvalid:
        return pa.Array.from_buffers(pa.large_binary(), count, buffers)
    return found


def texts(elements: Sequence[bytes]) -> pa.Array:
    """Byte strings as text; as bytes where one is no UTF-8."""
    try:
        return pa.array(elements, pa.large_string())
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return pa.array(elements, pa.large_binary())
