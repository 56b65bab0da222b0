"""JSON rows, for people: {"rows": [{"user_id": 7, "history": [1, 2], "price": null}]} -> {"predictions": [...]}.

Keys of a row are the columns of training; every one must be there, null if the value is missing. What all rows have in
common may be said once: {"shared": {"user_id": 7}, "rows": [{"item_id": 1}, {"item_id": 2}]}.
"""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.types as pt

from configs.errors import UserError
from embeddings.features.arrow import is_list, single_array
from trainer.serving.columns import as_made, element_type
from trainer.serving.rows import table_of
from trainer.serving.server.calls import ColumnCall
from trainer.serving.server.models import Version
from trainer.serving.server.scoring import WHERE

_KEY = re.compile(rb'"\s*:')


def read_rows(version: Version, body: bytes) -> ColumnCall:
    """The call that a body asks for. UserError: it is no JSON of rows, or rows that cannot be scored."""
    content = _loads(body)
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError('the body has no list of rows\nSend {"rows": [{"column": value, ...}, ...]}.')
    if not rows:
        raise UserError("the request has no rows\nSend one row or more.")
    shared = content.get("shared", {})
    if not isinstance(shared, dict):
        raise UserError('shared is not an object\nSend {"shared": {"column": value, ...}, "rows": [...]}.')
    return _call(version, rows, shared)


def _call(version: Version, rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Any]) -> ColumnCall:
    names, ids = version.bundle.transforms.columns, version.bundle.id_columns
    known = frozenset(names)
    _check_keys("shared", shared, known)
    own = known - shared.keys()
    for number, row in enumerate(rows):
        if not row.keys() <= own:
            _check_keys(f"row {number}", row, known)
            raise UserError(f"row {number} has {min(row.keys() - own)!r}, which is shared as well\nSend it once.")
    columns = _columns(version, table_of(rows, [name for name in names if name in own], ids))
    if shared:
        columns |= _columns(version, table_of([shared], [name for name in names if name in shared], ids))
    return ColumnCall(len(rows), columns, frozenset(shared) if len(rows) > 1 else frozenset())


def _check_keys(where: str, row: Mapping[str, Any], known: frozenset[str]) -> None:
    for key in row:
        if key not in known:
            close = get_close_matches(key, known, 1)
            raise UserError(
                f"{where} has {key!r}, which is not a column of this model\n"
                + (f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(sorted(known))}.")
            )


def _columns(version: Version, table: pa.Table) -> dict[str, pa.Array]:
    """As training had them, so that calls have equal types and can be joined."""
    table = version.bundle.as_trained(table, WHERE)
    schema = version.bundle.schema
    columns = {}
    for place, name in enumerate(table.column_names):
        array = single_array(table.column(place))
        if schema is not None and pt.is_null(element_type(array.type)):
            array = _nothing(array, schema.field(name).type)
        columns[name] = array
    return columns


def _nothing(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column without a value, of the type that `table_of` gives values of `kind`."""
    element = as_made(element_type(kind))
    if is_list(array.type):
        return array.cast(pa.large_list(element))
    return pa.nulls(len(array), pa.large_list(element) if is_list(kind) else element)


def _loads(body: bytes) -> Any:
    """JSON as orjson reads it; where that reads none, or keys twice, Python's reader says what it is about."""
    try:
        content = orjson.loads(body)
    except ValueError:
        return _loads_slowly(body)
    return content if len(_KEY.findall(body)) <= _count_keys(content) else _loads_slowly(body)


def _count_keys(content: Any) -> int:
    """Keys of the objects where a request has some; others only cost the slower reader."""
    if not isinstance(content, dict):
        return 0
    rows, shared = content.get("rows"), content.get("shared")
    count = len(content) + (len(shared) if isinstance(shared, dict) else 0)
    return count + (sum(len(row) for row in rows if isinstance(row, dict)) if isinstance(rows, list) else 0)


def _loads_slowly(body: bytes) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_object)
    except RecursionError:
        raise UserError("the body is not JSON of rows: it is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"the body is not JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. A key twice is refused, as `score` refuses a column twice: either value may be the one meant."""
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise UserError(f"an object has the key {twice!r} twice\nKeep one of them.")
    return values


def answer_rows(tasks: Sequence[str], predictions: npt.NDArray[np.float32]) -> bytes:
    """The answer's body."""
    return orjson.dumps({"predictions": [dict(zip(tasks, row, strict=True)) for row in predictions.tolist()]})
