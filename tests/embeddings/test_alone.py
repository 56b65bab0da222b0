"""One rank alone sees what torchrec's own forward pass returns, and hands room for other columns on."""

import pytest
import torch
import torch.distributed as dist
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from configs.schema import Config
from embeddings.alone import RowsWithRoom
from embeddings.optimizer import attach_sparse_optimizer
from embeddings.planning.planner import plan_tables
from embeddings.sharding import shard
from embeddings.tables import build_tables, initialize_tables

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded(second: dict[str, str]) -> torch.nn.Module:
    """Two tables, of which one is read by two features; `second` says more of the other."""
    config = Config.model_validate(
        {
            "data": {"root": "d", "global_batch_size": 4},
            "features": {"a": {"table": "t"}, "b": {"table": "u"}, "c": {"table": "t"}, "age": {}},
            "tables": {
                "t": {"num_embeddings": 20_000, "embedding_dim": 8, "init_scale": 1.0, "sharding": "row_wise"},
                "u": {"num_embeddings": 50, "embedding_dim": 4, "init_scale": 1.0, **second},
            },
            "tasks": {"click": {}},
            "training": {"run_dir": "r"},
        }
    )
    tables = build_tables(config, torch.device("meta"))
    assert tables is not None
    attach_sparse_optimizer(tables, config, CPU)
    plan = plan_tables(tables, config, 1, 1, CPU, group=dist.group.WORLD)
    assert dist.group.WORLD is not None
    model = shard(torch.nn.ModuleDict({"tables": tables}), plan, CPU, dist.group.WORLD, room=3)
    initialize_tables(model, config)
    return model.module["tables"]


@pytest.mark.parametrize("second", [{}, {"data_type": "fp16"}, {"sharding": "data_parallel"}])
@pytest.mark.parametrize("order", ["abc", "bca"])
def test_pooled_rows_are_torchrecs(second, order):
    tables = sharded(second)
    lengths = torch.randint(0, 3, (12,), generator=torch.Generator().manual_seed(0))
    bags = KeyedJaggedTensor(list(order), torch.arange(int(lengths.sum())), lengths=lengths)
    got = tables(bags).to_dict()
    want = type(tables).forward(tables, bags).to_dict()
    assert got.keys() == want.keys() == {"a", "b", "c"}
    for name, rows in want.items():
        assert torch.equal(got[name], rows), name


def test_room_is_filled_in_place():
    tables = sharded({})
    rows = tables(KeyedJaggedTensor(["a", "b", "c"], torch.arange(12), lengths=torch.ones(12, dtype=torch.int64)))
    assert isinstance(rows, RowsWithRoom)
    others = torch.rand(4, 3)
    x = rows.beside(others)
    assert torch.equal(x, torch.cat([rows.values(), others], dim=1))
    assert x.data_ptr() == rows.values().data_ptr()
