"""What one request asks for: columns of raw values. Calls with columns of the same types are scored as one.

A column is a NumPy array where the request brought numbers as bytes, so that nothing is made of each value; else an
Arrow array. R rows of a call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Column = npt.NDArray | pa.Array


class Call(Protocol):
    """Rows to score, in one of the forms in which they come."""

    shared: frozenset[str]
    """Columns with one row that stands for all."""

    @property
    def rows(self) -> int:
        """R."""
        ...

    @property
    def whole_rows(self) -> int:
        """Of how many rows without shared columns the call brings the values."""
        ...

    @property
    def kind(self) -> Any:
        """Calls of equal kinds can be joined."""
        ...

    def join(self, calls: Sequence[Any]) -> dict[str, pa.Array]:
        """The columns of `calls`, all of this kind, one after the other."""
        ...


@dataclass(eq=False)
class ColumnCall:
    """Rows as columns. shared: columns of one row for all of the call's rows."""

    count: int
    columns: Mapping[str, Column]
    shared: frozenset[str] = field(default=frozenset())

    @property
    def rows(self) -> int:
        """R."""
        return self.count

    @property
    def whole_rows(self) -> int:
        """See `Call`."""
        return 1 + (self.count - 1) * (len(self.columns) - len(self.shared)) // len(self.columns)

    @cached_property
    def kind(self) -> Any:
        """Of calls that can be joined: the same columns of the same types, and where some are shared the same of them,
        for as many rows: what is counted of a shared row is counted for each of them."""
        types = tuple((n, c.dtype if isinstance(c, np.ndarray) else c.type) for n, c in self.columns.items())
        return (types, self.shared, self.count) if self.shared else types

    def join(self, calls: Sequence["ColumnCall"]) -> dict[str, pa.Array]:
        """See `Call`."""
        return {name: _joined([call.columns[name] for call in calls]) for name in self.columns}


@dataclass(frozen=True, eq=False)
class Span:
    """Where a column's numbers lie in the bytes of a request: `width` of them for each of its rows."""

    column: str
    dtype: np.dtype
    start: int
    stop: int
    width: int


@dataclass(frozen=True, eq=False)
class Layout:
    """Numbers alone, at fixed places: what requests of one client look like, one after the other."""

    rows: int
    size: int
    spans: tuple[Span, ...]


@dataclass(eq=False)
class BytesCall:
    """Rows as the bytes in which they came. Checked by `Layout` already; looked at when the batch is formed."""

    layout: Layout
    data: bytes | memoryview
    shared: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        """R."""
        return self.layout.rows

    @property
    def whole_rows(self) -> int:
        """All."""
        return self.layout.rows

    @property
    def kind(self) -> Any:
        """The layout itself: another one may have the same columns, but elsewhere."""
        return self.layout

    def join(self, calls: Sequence["BytesCall"]) -> dict[str, pa.Array]:
        """See `Call`. One copy for each column, whatever the number of calls."""
        block = np.frombuffer(b"".join([call.data for call in calls]), np.uint8).reshape(len(calls), -1)
        columns = {}
        for span in self.layout.spans:
            values = pa.array(np.ascontiguousarray(block[:, span.start : span.stop]).reshape(-1).view(span.dtype))
            columns[span.column] = values if span.width == 1 else pa.FixedSizeListArray.from_arrays(values, span.width)
        return columns


def _joined(parts: Sequence[Column]) -> pa.Array:
    if isinstance(parts[0], np.ndarray):
        return pa.array(parts[0] if len(parts) == 1 else np.concatenate(parts))
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
