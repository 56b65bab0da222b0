"""The raw columns that a bundle expects, with the types that they had in training.

5 and "5" are different IDs: a column of another kind would meet other rows of its table, without any error. So kinds
are compared, and rows that come as JSON are read as the types of training.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from configs.errors import UserError
from embeddings.features.arrow import id_kind, is_list


def encode_schema(schema: pa.Schema) -> str:
    """A schema as text, for signature.json."""
    return base64.b64encode(schema.remove_metadata().serialize().to_pybytes()).decode()


def decode_schema(text: str) -> pa.Schema:
    """The inverse of `encode_schema`."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def check_ids(schema: pa.Schema, trained: pa.Schema, columns: Iterable[str], where: str) -> None:
    """Compares the kinds of ID columns with training's.

    Raises:
        UserError: one differs.
    """
    for column in columns:
        if column not in schema.names or column not in trained.names:
            continue
        found, expected = id_kind(schema.field(column).type), id_kind(trained.field(column).type)
        if found != expected and "nothing" not in (found, expected):
            raise UserError(
                f"{where}: column {column!r} has {found}, in training it had {expected}: its IDs would meet rows of "
                f"others\nCast it to {trained.field(column).type}."
            )


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], trained: pa.Schema | None) -> pa.Table:
    """Rows as dicts, such as JSON gives, as a table of `columns`; other keys are ignored.

    Raises:
        UserError: a row lacks a column, or holds what its type cannot take. A missing value is null.
    """
    arrays = []
    for column in columns:
        for number, row in enumerate(rows):
            if column not in row:
                raise UserError(f"row {number} has no {column!r}\nSend null for a missing value.")
        kind = trained.field(column).type if trained is not None and column in trained.names else None
        try:
            arrays.append(pa.array([row[column] for row in rows], _plain(kind)))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
            raise UserError(f"{column!r}: {error}\nSend what the column holds in training: {kind}.") from None
    return pa.table(arrays, names=list(columns))


def _plain(kind: pa.DataType | None) -> pa.DataType | None:
    """Without dictionaries, which Python values cannot be read into; None, a guess, where training saw nulls only."""
    if kind is None or id_kind(kind) == "nothing":
        return None
    if pt.is_dictionary(kind):
        return kind.value_type
    return pa.list_(_plain(kind.value_type)) if is_list(kind) else kind
