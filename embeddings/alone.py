"""Tables that are all on one rank: looked up where they are, without torchrec's exchange of IDs and rows with oneself.

The collection, its plan, its names and its state stay torchrec's: a checkpoint does not know how many ranks wrote it.

Shapes: B batch, C columns of the pooled rows of all features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.types import ShardingType
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from embeddings.cpu_lookup import CpuLookup

_WHOLE_ROWS = {
    ShardingType.TABLE_WISE.value,
    ShardingType.ROW_WISE.value,
    ShardingType.TABLE_ROW_WISE.value,
    ShardingType.DATA_PARALLEL.value,
}


class RowsWithRoom(KeyedTensor):
    """Pooled rows [B, C] that lie at the left of a wider matrix [B, C + room], whose other columns are free."""

    def __init__(self, keys: list[str], widths: list[int], whole: Tensor) -> None:
        super().__init__(keys, widths, whole[:, : sum(widths)])
        self._whole = whole

    def beside(self, others: Tensor) -> Tensor:
        """[B, C + room] with `others` [B, room] at the right; they get no gradient."""
        free = self._whole.detach()[:, -others.shape[1] :] if others.shape[1] else self._whole[:, :0]
        free.copy_(others)
        return self._whole


def look_up_alone(tables: ShardedEmbeddingBagCollection, room: int) -> None:
    """Gives `tables`, of which this process holds all, a forward pass of their own where they are cut by rows at most.

    room: columns that rows may leave free at their right, for `RowsWithRoom`.
    """
    if set(tables._sharding_types) <= _WHOLE_ROWS:
        tables.forward = _Alone(tables, room)  # pyright: ignore[reportAttributeAccessIssue]


class _Alone:
    """KeyedJaggedTensor -> KeyedTensor of sums [B, C]."""

    def __init__(self, tables: ShardedEmbeddingBagCollection, room: int) -> None:
        shardings = tables._embedding_shardings
        self._lookups: Sequence[nn.Module] = tables._lookups
        self._features = [sharding.feature_names() for sharding in shardings]
        self._keys = [key for sharding in shardings for key in sharding.embedding_names()]
        self._widths = [width for sharding in shardings for width in sharding.embedding_dims()]
        self._places: dict[tuple[str, ...], list[list[int]]] = {}
        self._room, self._only = room, _only_group(tables)

    def __call__(self, bags: KeyedJaggedTensor) -> KeyedTensor:
        parts = [self._chosen(bags, index) for index in range(len(self._lookups))]
        if self._only is not None:
            (bags,) = parts
            whole = self._only(bags.values().long(), bags.offsets(), bags.weights_or_none(), self._room)
            return RowsWithRoom(self._keys, self._widths, whole)
        rows = [lookup(part) for lookup, part in zip(self._lookups, parts, strict=True)]
        return KeyedTensor(self._keys, self._widths, rows[0] if len(rows) == 1 else torch.cat(rows, dim=1))

    def _chosen(self, bags: KeyedJaggedTensor, index: int) -> KeyedJaggedTensor:
        """The bags of the features that one lookup takes, in its order."""
        keys = tuple(bags.keys())
        if keys == tuple(self._features[index]):
            return bags
        if keys not in self._places:
            self._places[keys] = [[keys.index(name) for name in features] for features in self._features]
        return bags.permute(self._places[keys][index])


def _only_group(tables: ShardedEmbeddingBagCollection) -> CpuLookup | None:
    """The kernels on a CPU that look up everything; None if there are several groups, or others."""
    groups = [group for lookup in tables._lookups for group in getattr(lookup, "_emb_modules", ())]
    forward = groups[0].emb_module.forward if len(groups) == 1 else None
    return forward if isinstance(forward, CpuLookup) else None
