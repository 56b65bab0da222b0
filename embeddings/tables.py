"""The embedding tables of a run: one EmbeddingBagCollection on the meta device, and its initial weights.

Initial weights are a pure function of (seed, table, row, column): the same whatever the number of workers, the
sharding or the device. `embeddings.planning` decides where the tables live, `embeddings.sharding` puts them there.
"""

import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torchrec.distributed.shards_wrapper import LocalShardsWrapper
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from configs.schema import Config, TableConfig
from configs.splitmix import GAMMA, scramble

_DATA_TYPES = {"fp32": DataType.FP32, "fp16": DataType.FP16}


def build_tables(config: Config, device: torch.device) -> EmbeddingBagCollection | None:
    """The tables that `config.features` look up, in one collection; None when no feature is sparse.

    It takes one KeyedJaggedTensor with every sparse feature as a key, in any order, and returns a KeyedTensor
    [B, sum of widths] of sums, whose keys are the features, table by table; `embeddings.pooling` makes means of them.
    With weights on any feature, the whole KJT has them. Weights are not initialised: see `initialize_tables`.
    """
    features: dict[str, list[str]] = {}
    for name, feature in config.sparse_features.items():
        features.setdefault(feature.table, []).append(name)
    if not features:
        return None
    return EmbeddingBagCollection(
        tables=[_table(name, table, features[name]) for name, table in config.tables.items() if name in features],
        is_weighted=any(feature.weights for feature in config.sparse_features.values()),
        device=device,
    )


def _table(name: str, table: TableConfig, features: list[str]) -> EmbeddingBagConfig:
    return EmbeddingBagConfig(
        name=name,
        num_embeddings=table.num_embeddings,
        embedding_dim=table.embedding_dim,
        feature_names=features,
        data_type=_DATA_TYPES[table.data_type],
        pooling=PoolingType.SUM,
    )


@torch.no_grad()
def initialize_tables(module: nn.Module, config: Config) -> None:
    """Fill every table shard that this rank holds with uniform values in [-s, s], s = `TableConfig.init_scale`.

    Args:
        module: a module with the tables somewhere inside: sharded or not, but no longer on meta.
    """
    for name, weight in module.state_dict().items():
        parts = name.split(".")
        if parts[-3:-2] != ["embedding_bags"]:
            continue
        table = config.tables[parts[-2]]
        scale = table.init_scale or 1 / math.sqrt(table.num_embeddings)
        for shard, (row, column) in local_shards(weight):
            fill_uniform(shard, row, column, table.embedding_dim, scale, _key(config.training.seed, parts[-2]))


def local_shards(weight: Tensor) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """The parts that this rank holds of a table or its optimizer state, each with its first position in the whole."""
    if not isinstance(weight, DTensor):
        yield weight, (0,) * weight.dim()
        return
    local = weight.to_local()
    assert isinstance(local, LocalShardsWrapper), type(local)
    shards = local.local_shards()  # none on a rank that holds nothing of the table, which still has an offset
    for shard, offsets in zip(shards, local.local_offsets(), strict=False):
        yield shard, tuple(offsets)


def _key(seed: int, table: str) -> int:
    """A signed 64-bit number that is different for every seed and table."""
    digest = hashlib.blake2b(f"{seed}/{table}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def fill_uniform(shard: Tensor, row: int, column: int, width: int, scale: float, key: int) -> None:
    """Fill `shard` with uniform values in [-scale, scale), each a pure function of (key, row, column).

    Two neighbours of a row share one 64-bit number, SplitMix64 of the position in the table, so that all devices agree
    bit for bit.

    Args:
        shard: [rows, columns], columns even.
        row, column: position of the shard in its table, column even.
        width: columns of the whole table, even.
    """
    rows, columns = shard.shape
    assert columns % 2 == column % 2 == width % 2 == 0, (columns, column, width)
    if rows * columns == 0:
        return
    elements = 2**16 if shard.device.type == "cpu" else 2**24  # one block stays in the cache of a core
    step = max(1, elements // columns)
    pairs = torch.arange(column // 2, (column + columns) // 2, device=shard.device)
    for first in range(0, rows, step):
        block = shard[first : first + step]
        positions = torch.arange(row + first, row + first + len(block), device=shard.device)
        numbers = scramble((positions[:, None] * (width // 2) + pairs).mul_(GAMMA).add_(key))
        block.copy_(numbers.view(torch.int32) * (scale / 2**31))
