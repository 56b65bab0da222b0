"""Bags become a KeyedJaggedTensor in the order asked for."""

import numpy as np

from embeddings.features.bags import Bags
from embeddings.kjt import to_kjt


def ragged(values, lengths, weights=None):
    weights = None if weights is None else np.array(weights, np.float32)
    return Bags(np.array(values, np.int64), np.array(lengths, np.int32), weights)


def test_order_is_the_callers():
    kjt = to_kjt(["b", "a"], {"a": ragged([1, 2], [2, 0]), "b": ragged([3], [0, 1])})
    assert kjt.keys() == ["b", "a"]
    assert kjt["a"].to_dense()[0].tolist() == [1, 2]
    assert kjt["b"].lengths().tolist() == [0, 1]
    assert kjt.weights_or_none() is None


def test_one_weighted_feature_weighs_all():
    kjt = to_kjt(["a", "b"], {"a": ragged([1, 2], [2, 0], [0.5, 2]), "b": ragged([3], [0, 1])})
    assert kjt.weights().tolist() == [0.5, 2, 1]
