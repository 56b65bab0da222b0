"""Numbers into buckets between fixed boundaries: bucket i holds boundaries[i-1] < x <= boundaries[i].

A boundary is rounded as the column rounds its numbers: 0.1 in a float column, which is a little more than 0.1, does not
pass the boundary 0.1, so that it is in the bucket that it has in a double column.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.choice_settings import ChoiceSettings
from configs.errors import UserError
from configs.schema import SparseFeature, TableConfig
from embeddings.features.arrow import floats
from embeddings.features.places import ElementError
from embeddings.features.transforms import Transform


def build(settings: ChoiceSettings, name: str, feature: SparseFeature, table: TableConfig) -> Transform:
    """Values -> the first bucket whose upper edge they do not pass; the last bucket has no upper edge."""
    boundaries = np.array(feature.boundaries, np.float64)
    if not len(boundaries) or not (np.diff(boundaries) > 0).all():
        raise UserError(
            f"features.{name}.boundaries={feature.boundaries} are not increasing numbers\n"
            f"Write the upper edges of the buckets, as features.{name}.boundaries=[1,10,100]."
        )
    if len(boundaries) >= table.num_embeddings:
        raise UserError(
            f"features.{name}: {len(boundaries)} boundaries are {len(boundaries) + 1} buckets, but table "
            f"{feature.table!r} has {table.num_embeddings} rows\nRaise tables.{feature.table}.num_embeddings."
        )

    def transform(values: pa.Array, where: str) -> npt.NDArray[np.int64]:
        numbers = floats(values, 0.0, where)
        nan = np.isnan(numbers)
        if nan.any():
            raise ElementError(where, int(np.argmax(nan)), "is NaN\nWrite null for a missing number.")
        edges = _rounded_as(values.type, boundaries)
        return np.searchsorted(edges, numbers, side="left").astype(np.int64, copy=False)

    return transform


def _rounded_as(kind: pa.DataType, boundaries: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The boundaries as a column of type `kind` holds them; those beyond its largest number stay as they are."""
    if kind not in (pa.float16(), pa.float32()):
        return boundaries
    with np.errstate(over="ignore"):
        rounded = boundaries.astype(kind.to_pandas_dtype()).astype(np.float64)
    return np.where(np.isfinite(rounded), rounded, boundaries)
