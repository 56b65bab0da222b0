"""Bags of rows against lists of lists."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import SparseFeature, TableConfig
from embeddings.features.bags import Bags
from embeddings.features.feature_transforms import FeatureTransforms

ROWS = st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=12)


def bags_of(rows: list, weights: bool = False) -> Bags:
    values = np.array([value for row in rows for value in row], np.int64)
    lengths = np.array([len(row) for row in rows], np.int32)
    return Bags(values, lengths, values.astype(np.float32) / 2 if weights else None)


def lists_of(bags: Bags) -> list[list[int]]:
    ends = np.cumsum(bags.lengths)
    return [bags.values[end - n : end].tolist() for end, n in zip(ends, bags.lengths, strict=True)]


@given(ROWS, st.booleans(), st.data())
def test_narrow_takes_rows_with_their_ids_and_weights(rows, weights, data):
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    part = bags_of(rows, weights).narrow(start, stop)
    assert lists_of(part) == rows[start:stop]
    assert (part.weights is not None) == weights
    assert part.all_weights.tolist() == [value / 2 if weights else 1 for value in part.values]


@given(st.lists(st.integers(0, 99)), st.data())
def test_a_scalar_column_stays_one_when_it_is_narrowed(values, data):
    features = FeatureTransforms(
        {"x": SparseFeature(table="t", transform="identity")}, {"t": TableConfig(num_embeddings=100, embedding_dim=4)}
    )
    bags = features(pa.table({"x": pa.array(values, pa.int64())}), "").sparse["x"]
    start = data.draw(st.integers(0, len(values)))
    part = bags.narrow(start, len(values))
    assert bags.is_scalar
    assert part.is_scalar
    assert bags.nbytes == bags.values.nbytes
    assert lists_of(part) == [[value] for value in values[start:]]
