"""The yardsticks of benchmarks/plain.py: a training step as one writes it in plain PyTorch, and as torchrec shows it.

Both have an MMoE as a loop over experts, gates and towers, and binary cross-entropy for every task, whatever the
config's losses: the work is the same, and a yardstick must not change with them.

Shapes: B batch, D width of the top's input, E experts, H width of an expert, T tasks.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward
from torchrec import optim as fused
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from benchmarks.one_worker import as_read
from benchmarks.top import LoopMMoE, Size
from configs.errors import UserError
from configs.schema import Config
from trainer.data.reading.batch import Batch

Step = Callable[[], object]


class LoopTop(LoopMMoE):
    """x [B, D] -> logits [B, T]; experts and gates one after the other, mixed by an einsum."""

    def forward(self, x: Tensor) -> Tensor:
        experts = torch.stack([expert(x) for expert in self.experts])
        gates = torch.stack([torch.softmax(gate(x), dim=1) for gate in self.gates])
        mixed = torch.einsum("tbe,ebh->tbh", gates, experts)
        return torch.cat([tower(own) for tower, own in zip(self.towers, mixed, strict=True)], dim=1)


def loop_top(config: Config) -> LoopTop:
    """For the config's inputs and tasks.

    Raises:
        UserError: its top is not an MMoE, or has what the loop has not.
    """
    model = config.model
    own = [name for name, task in config.tasks.items() if task.tower_layers is not None or task.parent is not None]
    if model.top != "mmoe" or model.activation != "relu" or model.residual or own:
        raise UserError(
            f"model.top={model.top} of this config is not the MMoE that the plain loop has\n"
            "Take a config with top mmoe, ReLU, no residuals, equal towers and no funnels."
        )
    return LoopTop(Size(config.data.global_batch_size, config.input_layout.width, len(config.tasks), model))


def bce(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, labels, weight=weights)


class PlainBatch(NamedTuple):
    """What a plain loop is fed."""

    bags: list[tuple[str, Tensor, Tensor, Tensor | None]]  # of each feature: table, IDs, offsets, weights
    dense: Tensor
    labels: Tensor
    weights: Tensor


def plain_batch(batch: Batch, config: Config) -> PlainBatch:
    bags = []
    by_feature = {} if batch.sparse is None else batch.sparse.to_dict()
    for name, feature in config.sparse_features.items():
        found = by_feature[name]
        weights = found.weights() if feature.weights else None
        bags.append((feature.table, found.values().clone(), found.offsets()[:-1].clone(), weights))
    return PlainBatch(bags, batch.dense, batch.labels, batch.label_weights)


def plain_step(config: Config, batches: Sequence[Batch], *, compiled: bool) -> Step:
    """nn.EmbeddingBag(sparse=True) for each table with Adagrad, the loop with fused Adam."""
    tables = nn.ModuleDict(
        {
            name: nn.EmbeddingBag(table.num_embeddings, table.embedding_dim, mode=table.pooling, sparse=True)
            for name, table in config.tables.items()
        }
    )
    top = loop_top(config)
    if compiled:
        top.compile(dynamic=False)
    of_tables = torch.optim.Adagrad(tables.parameters(), lr=config.training.sparse_optimizer.learning_rate)
    of_top = torch.optim.Adam(top.parameters(), lr=config.training.dense_optimizer.learning_rate, fused=True)
    source = cycle([plain_batch(batch, config) for batch in batches])

    def step() -> None:
        batch = next(source)
        of_tables.zero_grad(set_to_none=True)
        of_top.zero_grad(set_to_none=True)
        pooled = [tables[table](ids, offsets, weights) for table, ids, offsets, weights in batch.bags]
        loss = bce(top(torch.cat([*pooled, batch.dense], dim=1)), batch.labels, batch.weights)
        loss.backward()
        of_tables.step()
        of_top.step()

    return step


class TorchrecRanker(nn.Module):
    """Batch -> (loss [], logits [B, T])."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        features: dict[str, list[str]] = {}
        for name, feature in config.sparse_features.items():
            features.setdefault(feature.table, []).append(name)
        self.tables = EmbeddingBagCollection(
            tables=[
                EmbeddingBagConfig(
                    name=name,
                    num_embeddings=config.tables[name].num_embeddings,
                    embedding_dim=config.tables[name].embedding_dim,
                    feature_names=names,
                    pooling=PoolingType[config.tables[name].pooling.upper()],
                )
                for name, names in features.items()
            ],
            is_weighted=any(feature.weights for feature in config.sparse_features.values()),
            device=torch.device("meta"),
        )
        self.top = loop_top(config)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.tables(batch.sparse).values(), batch.dense], dim=1)
        logits = self.top(x)
        return bce(logits, batch.labels, batch.label_weights), logits.detach()


def torchrec_step(config: Config, batches: Sequence[Batch]) -> Step:
    """EmbeddingBagCollection with fused row-wise Adagrad, DistributedModelParallel, TrainPipelineSparseDist."""
    device, training = torch.device("cpu"), config.training
    ranker = TorchrecRanker(config)
    rate = {"lr": training.sparse_optimizer.learning_rate}
    _apply_optimizer_in_backward(fused.RowWiseAdagrad, ranker.tables.parameters(), rate)
    sharders = [EmbeddingBagCollectionSharder()]
    planner = EmbeddingShardingPlanner(topology=Topology(world_size=1, compute_device="cpu"))
    plan = planner.collective_plan(ranker, sharders, dist.group.WORLD)
    model = DistributedModelParallel(ranker, device=device, plan=plan, sharders=sharders)
    dense = KeyedOptimizerWrapper(
        dict(in_backward_optimizer_filter(model.named_parameters())),
        lambda parameters: torch.optim.Adam(parameters, lr=training.dense_optimizer.learning_rate, fused=True),
    )
    pipeline = TrainPipelineSparseDist(model, CombinedOptimizer([model.fused_optimizer, dense]), device)
    model.train()
    source: Iterator[Batch] = as_read(batches)
    return lambda: pipeline.progress(source)
