"""Puts the tables where the plan says: a module becomes torchrec's DistributedModelParallel.

The plan comes from `embeddings.planning.planner`; initial weights from `embeddings.tables`, afterwards.
"""

from typing import cast

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder, ShardedEmbeddingBagCollection
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ModuleSharder, ShardingEnv, ShardingPlan, ShardingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from embeddings.alone import look_up_alone
from embeddings.cpu_lookup import look_up_on_cpu
from embeddings.dense_gradients import WithoutDDP
from embeddings.planning.plan import Plan


class TableSharder(EmbeddingBagCollectionSharder):
    """Torchrec's sharder, which also lets rows be cut on CPU: its own hides that, though it works."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        by_rows = [ShardingType.ROW_WISE.value, ShardingType.TABLE_ROW_WISE.value]
        known = super().sharding_types(compute_device_type)
        return known + [kind for kind in by_rows if kind not in known]


def table_sharders() -> list[ModuleSharder[nn.Module]]:
    """What torchrec's planner and DistributedModelParallel want to know of our tables."""
    return [cast(ModuleSharder[nn.Module], TableSharder())]


def shard(
    module: nn.Module, plan: Plan, device: torch.device, group: dist.ProcessGroup, *, room: int = 0
) -> DistributedModelParallel:
    """`module`, its tables sharded by `plan` and the rest replicated.

    Gradients of the replicated rest stay each rank's own until `embeddings.optimizer` averages them before a step. The
    module is used up: its tables move out of it. Table weights and their optimizer state come as DTensors in
    `state_dict()`, which asynchronous checkpoints need. Parameter names stay those of `module`.

    Args:
        module: holds at most one EmbeddingBagCollection, on meta; parameters on meta are put on `device` and reset.
        plan: of that collection, the same on every rank.
        group: all the ranks of the plan.
        room: columns that the pooled rows may leave free, see `embeddings.alone`.
    """
    paths = [path for path, part in module.named_modules() if isinstance(part, EmbeddingBagCollection)]
    assert len(paths) <= 1, paths
    assert dist.get_world_size(group) == plan.world_size, (dist.get_world_size(group), plan.world_size)
    digest = torch.tensor([plan.digest(), -plan.digest()], device=device)
    dist.all_reduce(digest, dist.ReduceOp.MIN, group)
    assert digest[0] == -digest[1], "the ranks hold different plans"  # they would wait for each other for ever
    env = ShardingEnv(plan.world_size, dist.get_rank(group), group, output_dtensor=True)
    sharded = DistributedModelParallel(
        module,
        env=env,
        device=device,
        plan=ShardingPlan({paths[0]: plan.placement} if paths else {}),
        sharders=table_sharders(),
        data_parallel_wrapper=WithoutDDP(),
    )
    for part in sharded.modules():
        if isinstance(part, ShardedEmbeddingBagCollection):
            look_up_on_cpu(part)
            if plan.world_size == 1:
                look_up_alone(part, room)
    return sharded
