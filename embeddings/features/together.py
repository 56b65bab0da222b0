"""Plain columns of few rows, all of a kind in one call: a request has few rows, and then each call of NumPy costs more
than what it does. 26 hashed columns take .22 ms at one row and .31 at 512; one after the other, .48 and 1.49 (Xeon).

Plain is a column of numbers in one piece, without nulls and lists. What else there is, and tables of many rows, go
through `feature_transforms` column by column; both give the same bits.

Shapes: R rows, F features of a kind.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.layout import Span
from configs.schema import DenseFeature, SparseFeature, TableConfig
from embeddings.features.arrow import ones
from embeddings.features.bags import Bags
from embeddings.features.dense import normalize
from embeddings.features.xxh64 import hash_integers

MOST_ROWS = 2048  # beyond, copying columns side by side costs what it saves
_INTEGERS = frozenset((pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()))
_NUMBERS = frozenset((pa.int32(), pa.int64(), pa.uint32(), pa.uint64(), pa.float32(), pa.float64()))


class Together:
    """The features of which plain columns can be transformed at once."""

    def __init__(
        self,
        sparse: Mapping[str, SparseFeature],
        dense: Mapping[str, DenseFeature],
        tables: Mapping[str, TableConfig],
        spans: Mapping[str, Span],
    ) -> None:
        self._hashed = {
            name: (f.column or name, tables[f.table].num_embeddings)
            for name, f in sparse.items()
            if f.transform == "hash" and f.weights is None
        }
        self._dense = {name: (f.column or name, f, spans[name][0]) for name, f in dense.items() if f.width == 1}

    def bags(self, table: pa.Table) -> dict[str, Bags]:
        """The bags of hashed features, for those with plain integers."""
        found = _plain(table, {name: column for name, (column, _) in self._hashed.items()}, _INTEGERS)
        if not found:
            return {}
        values = np.empty((len(found), table.num_rows), np.int64)
        for place, array in enumerate(found.values()):
            values[place] = array
        sizes = np.array([self._hashed[name][1] for name in found], np.uint64)
        rows = (hash_integers(values.reshape(-1)).reshape(values.shape) % sizes[:, None]).view(np.int64)
        return {name: Bags(rows[place], ones(table.num_rows)) for place, name in enumerate(found)}

    def fill(self, dense: npt.NDArray[np.float32], table: pa.Table) -> set[str]:
        """Fills the columns of `dense` [R, D] of features with plain numbers, and returns which those were."""
        found = _plain(table, {name: column for name, (column, _, _) in self._dense.items()}, _NUMBERS)
        kinds: dict[tuple, list[str]] = defaultdict(list)
        for name, array in found.items():
            feature = self._dense[name][1]
            kinds[array.dtype, feature.transform, feature.mean, feature.std].append(name)
        for names in kinds.values():
            numbers = np.stack([found[name] for name in names])
            with np.errstate(over="ignore", invalid="ignore"):
                dense[:, [self._dense[name][2] for name in names]] = normalize(numbers, self._dense[names[0]][1]).T
        return set(found)


def _plain(table: pa.Table, columns: Mapping[str, str], types: frozenset[pa.DataType]) -> dict[str, npt.NDArray]:
    """Feature -> its column [R], for those of one of `types` that are in one piece and have no null."""
    found, schema = {}, table.schema
    places = {name: place for place, name in enumerate(schema.names)}
    for name, column in columns.items():
        chunked = table.column(places[column])
        if chunked.type in types and chunked.num_chunks == 1 and not chunked.null_count:
            found[name] = chunked.chunk(0).to_numpy()
    return found
