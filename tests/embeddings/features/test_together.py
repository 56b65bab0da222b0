"""What is transformed together has the bits that it has column by column."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import DenseFeature, SparseFeature, TableConfig
from embeddings.features.feature_transforms import FeatureTransforms

TABLES = {
    "small": TableConfig(num_embeddings=7, embedding_dim=4),
    "large": TableConfig(num_embeddings=10**9, embedding_dim=4),
}
FEATURES = {
    "a": SparseFeature(table="small"),
    "b": SparseFeature(table="large"),
    "one": SparseFeature(table="large", column="b", transform="identity", out_of_range="drop"),
    "x": DenseFeature(transform="log1p"),
    "y": DenseFeature(transform="standardize", mean=3.0, std=0.7),
    "z": DenseFeature(),
    "again": DenseFeature(column="x", transform="log1p"),
}
IDS = (pa.int8(), pa.int32(), pa.int64(), pa.uint32())
NUMBERS = (pa.float32(), pa.float64(), pa.int32(), pa.int64())


@given(st.integers(1, 70), st.sampled_from(IDS), st.sampled_from(NUMBERS), st.data())
def test_together_and_one_by_one(rows, id_type, number_type, data):
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    numbers = {name: pa.array(random.integers(-99, 10**6, rows), number_type) for name in ("x", "y", "z")}
    ids = {name: pa.array(random.integers(0, 127, rows), id_type) for name in ("a", "b")}
    table = pa.table(ids | numbers)
    transforms = FeatureTransforms(FEATURES, TABLES)
    together = transforms(table, "rows")
    apart = transforms(pa.concat_tables([table, table]), "rows")  # in two pieces, so not plain
    np.testing.assert_array_equal(together.dense, apart.dense[:rows])
    for name, bags in together.sparse.items():
        np.testing.assert_array_equal(bags.values, apart.narrow(0, rows).sparse[name].values)
        np.testing.assert_array_equal(bags.lengths, apart.sparse[name].lengths[:rows])


@pytest.mark.parametrize("column", ["a", "x"])
def test_a_null_goes_the_other_way(column):
    values = {name: [1, 2, 3] for name in ("a", "b", "x", "y", "z")} | {column: [1, None, 3]}
    columns = FeatureTransforms(FEATURES, TABLES)(pa.table(values), "rows")
    assert columns.sparse["a"].lengths.tolist() == ([1, 0, 1] if column == "a" else [1, 1, 1])
    assert (columns.dense[1, 0] == 0) == (column == "x")
