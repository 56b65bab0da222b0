"""What share of a feature's values is missing, unknown or cut off: in training's rows, and in those of requests.

If requests have other shares than training had, something between the two is wrong, or the world has changed.
nulls: rows without a value, of all rows. unknown: IDs that a vocabulary lacks or that are dropped, of the IDs that are
looked up or dropped. clipped: IDs beyond `max_length` of a list, of all IDs; a null inside a list counts as one.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from configs.schema import Feature, SparseFeature
from embeddings.features.arrow import single_array
from embeddings.features.feature_transforms import Columns

_LISTS = (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray, pa.ListViewArray, pa.LargeListViewArray)
COUNTS = ("rows", "nulls", "ids", "unknown", "clipped")


class Shares(BaseModel):
    """Of one feature, each from 0 to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    nulls: float
    unknown: float
    clipped: float


def counts_of(
    features: Mapping[str, Feature], columns: Mapping[str, pa.Array], transformed: Columns
) -> npt.NDArray[np.int64]:
    """COUNTS of each feature [F, 5], in rows that were transformed.

    Args:
        columns: the raw ones of these rows, among them all that the features read.
    """
    counts, unknown_in = [], _unknown(features, transformed)
    for name, feature in features.items():
        array = columns[feature.column or name]
        if isinstance(array, _LISTS):
            nulls, ids, clipped = _of_lists(array, getattr(feature, "max_length", None))
        else:
            nulls, clipped = array.null_count, 0
            ids = len(array) - nulls
        counts.append((len(array), nulls, ids, unknown_in.get(name, 0), clipped))
    return np.array(counts, np.int64).reshape(-1, len(COUNTS))


def _of_lists(array: pa.Array, limit: int | None) -> tuple[int, int, int]:
    if isinstance(array, pa.ListArray | pa.LargeListArray) and not array.null_count:
        lengths = np.diff(array.offsets.to_numpy())
    elif isinstance(array, pa.FixedSizeListArray) and not array.null_count:
        lengths = np.full(len(array), array.type.list_size)
    else:
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
    clipped = 0 if limit is None else int(np.maximum(lengths.astype(np.int64) - limit, 0).sum())
    return int(np.count_nonzero(lengths == 0)), int(lengths.sum()), clipped


def _unknown(features: Mapping[str, Feature], transformed: Columns) -> dict[str, int]:
    """Feature -> its unknown IDs, where it has a way to know."""
    found = dict(transformed.dropped)
    for name, bags in transformed.sparse.items():
        feature = features[name]
        if isinstance(feature, SparseFeature) and feature.transform == "vocabulary":
            missed = len(bags.values) - int(np.count_nonzero(bags.values))  # row 0 is for those that the file lacks
            found[name] = found.get(name, 0) + missed
    return found


def shares_of(counts: npt.NDArray[np.int64]) -> Shares:
    """Of one feature's COUNTS [5]."""
    rows, nulls, ids, unknown, clipped = counts.tolist()
    return Shares(
        nulls=nulls / rows if rows else 0.0,
        unknown=unknown / (ids - clipped) if ids > clipped else 0.0,
        clipped=clipped / ids if ids else 0.0,
    )


def shares_by_feature(features: Mapping[str, Feature], rows: pa.Table, transformed: Columns) -> dict[str, Shares]:
    """The shares in a table of raw rows, by feature."""
    columns = {name: single_array(rows.column(name)) for name in rows.column_names}
    counts = counts_of(features, columns, transformed)
    return {name: shares_of(row) for name, row in zip(features, counts, strict=True)}
