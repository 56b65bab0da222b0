"""Integers that are row numbers already. One outside the table is an error, or is left out of its bag."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.choice_settings import ChoiceSettings
from configs.schema import SparseFeature, TableConfig
from embeddings.features.arrow import integers, refuse
from embeddings.features.limits import Limits
from embeddings.features.places import ElementError, to_train
from embeddings.features.transforms import Transform


def limits(name: str, feature: SparseFeature, table: TableConfig) -> Limits | None:
    """IDs outside the table, unless they are dropped."""
    if feature.out_of_range == "drop":
        return None
    return Limits(f"To train with these, {_remedy(name, feature)}", 0, table.num_embeddings - 1)


def _remedy(name: str, feature: SparseFeature) -> str:
    larger, dropped = f"raise tables.{feature.table}.num_embeddings", f"set features.{name}.out_of_range=drop"
    return f"{larger}, or {dropped}, or use transform: hash."


def build(settings: ChoiceSettings, name: str, feature: SparseFeature, table: TableConfig) -> Transform:
    """Values -> themselves; out of [0, num_embeddings): UserError, or -1 with `out_of_range: drop`."""
    num_embeddings, drop = table.num_embeddings, feature.out_of_range == "drop"

    def transform(values: pa.Array, where: str) -> npt.NDArray[np.int64]:
        rows = integers(values, where)
        if rows is None:
            refuse(
                values.type, where, "a row number", f"Write integers.{to_train('use transform: hash or vocabulary.')}"
            )
        unsigned = rows.view(np.uint64)  # in which negative numbers are large
        if not len(rows) or unsigned.max() < num_embeddings:
            return rows
        outside = unsigned >= np.uint64(num_embeddings)
        if drop:
            return np.where(outside, np.int64(-1), rows)
        first = int(np.argmax(outside))
        outside_of = f"outside table {feature.table!r} of {num_embeddings:,} rows"
        remedy = f"Give IDs from 0 to {num_embeddings - 1:,}.{to_train(_remedy(name, feature))}"
        raise ElementError(where, first, f"has ID {values[first]}, {outside_of}\n{remedy}")

    return transform
