"""Tables as the config describes them, and initial weights that know no shards."""

import hashlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Config
from embeddings.tables import build_tables, fill_uniform, initialize_tables

META, CPU = torch.device("meta"), torch.device("cpu")


def config(features, tables, seed=0):
    return Config.model_validate(
        {
            "data": {"root": "d"},
            "features": features,
            "tables": tables,
            "tasks": {"click": {}},
            "training": {"run_dir": "r", "seed": seed},
        }
    )


def small(seed=0, **table):
    tables = {"a": {"num_embeddings": 5000, "embedding_dim": 8} | table, "b": {"num_embeddings": 3, "embedding_dim": 4}}
    return config({"x": {"table": "a"}, "y": {"table": "b"}, "z": {"table": "a"}, "n": {}}, tables, seed)


def weights(config):
    tables = build_tables(config, CPU)
    initialize_tables(tables, config)
    return {name.split(".")[1]: weight for name, weight in tables.state_dict().items()}


def test_a_table_is_built_as_configured():
    tables = build_tables(small(pooling="mean", data_type="fp16"), META)
    a, b = tables.embedding_bag_configs()
    assert (a.name, a.num_embeddings, a.embedding_dim, a.feature_names) == ("a", 5000, 8, ["x", "z"])
    assert (b.name, b.feature_names) == ("b", ["y"])
    assert (a.pooling.value, b.pooling.value) == ("SUM", "SUM")  # a mean is divided afterwards
    assert (a.data_type.value, b.data_type.value) == ("FP16", "FP32")
    assert {weight.device.type for weight in tables.parameters()} == {"meta"}
    assert not tables.is_weighted()


def test_weights_on_one_feature_weigh_the_collection():
    features = {"x": {"table": "a"}, "y": {"table": "a", "weights": "w"}}
    assert build_tables(config(features, {"a": {"num_embeddings": 4, "embedding_dim": 4}}), META).is_weighted()


def test_no_sparse_feature_needs_no_tables():
    assert build_tables(config({"n": {}}, {"a": {"num_embeddings": 4, "embedding_dim": 4}}), META) is None


def test_a_table_that_no_feature_uses_is_left_out():
    tables = {"a": {"num_embeddings": 4, "embedding_dim": 4}, "b": {"num_embeddings": 4, "embedding_dim": 4}}
    built = build_tables(config({"x": {"table": "b"}}, tables), META)
    assert [table.name for table in built.embedding_bag_configs()] == ["b"]


def test_initial_weights_are_uniform_and_as_wide_as_asked():
    for table, scale in (({}, 1 / math.sqrt(5000)), ({"init_scale": 0.5}, 0.5), ({"data_type": "fp16"}, 5000**-0.5)):
        weight = weights(small(**table))["a"].double() / scale
        assert 0.999 < weight.abs().max() < 1.001  # fp16 rounds up, too
        assert weight.mean().abs() < 4 / math.sqrt(3 * weight.numel())
        assert weight.square().mean() == pytest.approx(1 / 3, abs=0.01)
        columns = torch.corrcoef(weight.T) - torch.eye(8)
        assert columns.abs().max() < 5 / math.sqrt(5000)


def test_seeds_and_tables_differ():
    first, second = weights(small(seed=1)), weights(small(seed=2))
    assert not torch.isclose(first["a"], second["a"]).any(1).all()
    assert not torch.isclose(first["a"][:3, :4] / 5000**-0.5, first["b"] / 3**-0.5).any()


def test_weights_of_a_seed_are_a_promise():
    """A run that is started again, on another version or device, starts where it did: from these numbers."""
    start = [-0.3697669427974882, 0.1693511805894191, 0.09677595753803812, -0.49268285904938763]
    assert [initial_weight(7, "b", 4, 0, column, 3**-0.5) for column in range(4)] == start
    weight = weights(small(seed=7))
    torch.testing.assert_close(weight["b"][0], torch.tensor(start), rtol=1e-6, atol=0)
    last = [initial_weight(7, "a", 8, 4999, column, 5000**-0.5) for column in range(8)]
    torch.testing.assert_close(weight["a"][-1], torch.tensor(last), rtol=1e-6, atol=0)


def initial_weight(seed, table, width, row, column, scale):
    """SplitMix64 in plain integers: one number for two neighbours, the even column from its lower half."""
    key = int.from_bytes(hashlib.blake2b(f"{seed}/{table}".encode(), digest_size=8).digest(), "little")
    z = ((row * width + column) // 2 * 0x9E3779B97F4A7C15 + key) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    half = (z ^ z >> 31) >> (32 if column % 2 else 0) & 0xFFFFFFFF
    return (half - 2**32 if half >= 2**31 else half) / 2**31 * scale


@given(st.integers(1, 40), st.integers(1, 12), st.integers(-(2**63), 2**63 - 1), st.floats(1e-4, 10), st.data())
def test_a_shard_is_a_part_of_the_whole(rows, pairs, key, scale, data):
    whole = torch.empty(rows, 2 * pairs)
    fill_uniform(whole, 0, 0, 2 * pairs, scale, key)
    top, left = data.draw(st.integers(0, rows)), data.draw(st.integers(0, pairs))
    bottom, right = data.draw(st.integers(top, rows)), data.draw(st.integers(left, pairs))
    part = torch.empty(bottom - top, 2 * (right - left))
    fill_uniform(part, top, 2 * left, 2 * pairs, scale, key)
    assert torch.equal(part, whole[top:bottom, 2 * left : 2 * right])


def test_blocks_leave_no_seam():
    whole = torch.empty(70_000, 4)
    fill_uniform(whole, 0, 0, 4, 1.0, 3)
    for start in (16_383, 16_384, 60_000):
        part = torch.empty(10_000, 4)
        fill_uniform(part, start, 0, 4, 1.0, 3)
        assert torch.equal(part, whole[start : start + 10_000])
    assert len(whole.unique(dim=0)) == len(whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_agrees_bit_for_bit():
    parts = [torch.empty(1000, 64, device=device) for device in ("cpu", "cuda")]
    for part in parts:
        fill_uniform(part, 2**40, 2, 128, 0.01, -5)
    assert torch.equal(parts[0], parts[1].cpu())
