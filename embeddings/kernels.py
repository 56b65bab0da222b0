"""FBGEMM's table kernels inside a sharded model: what a checkpoint needs of them and TorchRec does not pass on.

They count steps, which fused Adam divides by, and do not save the count. Rows of a table behind a cache may be newer
in the cache than in the table.
"""

from collections.abc import Iterator
from typing import Any

from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
from torch import nn
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection


def groups_of(model: nn.Module) -> Iterator[Any]:
    """TorchRec's groups of this rank's shards, with the kernels as `emb_module`; none of data-parallel tables, which
    are ordinary parameters."""
    sharded = (module for module in model.modules() if isinstance(module, ShardedEmbeddingBagCollection))
    for lookup in (lookup for module in sharded for lookup in module._lookups):  # a list: not among the modules
        for group in getattr(lookup, "_emb_modules", ()):
            if isinstance(group.emb_module, SplitTableBatchedEmbeddingBagsCodegen):
                yield group


def kernels_of(model: nn.Module) -> Iterator[SplitTableBatchedEmbeddingBagsCodegen]:
    """The kernels that this rank's shards are in."""
    for group in groups_of(model):
        yield group.emb_module


def set_steps_done(model: nn.Module, steps: int) -> None:
    """Lets the kernels go on counting after `steps`: they step once in each of the run's steps."""
    for kernel in kernels_of(model):
        kernel.set_optimizer_step(steps)


def write_back(model: nn.Module) -> None:
    """Brings what is in caches into the tables, which are then as they have to be saved."""
    for kernel in kernels_of(model):
        kernel.flush()
