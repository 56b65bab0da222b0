"""Every feature has its columns of the top's input, and all who lay blocks out ask for them."""

from configs.feature_config import DenseFeature, SparseFeature, TableConfig
from configs.layout import layout_of

TABLES = {
    "wide": TableConfig(num_embeddings=10, embedding_dim=8),
    "thin": TableConfig(num_embeddings=10, embedding_dim=4),
}


def test_sparse_features_come_first_and_dense_ones_after():
    features = {
        "vector": DenseFeature(width=3),
        "user": SparseFeature(table="wide"),
        "price": DenseFeature(),
        "item": SparseFeature(table="thin"),
    }
    layout = layout_of(features, TABLES)
    assert layout.spans == {"user": (0, 8), "item": (8, 12), "vector": (12, 15), "price": (15, 16)}
    assert (layout.width, layout.dense, layout.dense_width) == (16, (12, 16), 4)
    assert layout.dense_spans == {"vector": (0, 3), "price": (3, 4)}
    assert layout.in_order({"item": "i", "user": "u"}, "dense") == ["u", "i", "dense"]


def test_one_kind_alone():
    assert layout_of({"price": DenseFeature(width=2)}, {}).dense_spans == {"price": (0, 2)}
    assert layout_of({"item": SparseFeature(table="thin")}, TABLES).dense_width == 0
