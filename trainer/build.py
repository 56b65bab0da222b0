"""Builds the ranker of a config and puts it on this worker: tables sharded, the top replicated, optimizers attached."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.model_parallel import DistributedModelParallel

from cluster.worker import Worker
from configs.schema import Config, TrainingConfig
from embeddings.cpu_lookup import try_updates
from embeddings.optimizer import RankerOptimizer, attach_sparse_optimizer, combined_optimizer
from embeddings.planning.plan import Pins, Plan
from embeddings.planning.planner import plan_tables
from embeddings.sharding import shard
from embeddings.tables import build_tables, initialize_tables
from models.build import top_of
from models.fork import attach, uncombined
from trainer.objective import Objective
from trainer.ranker import Ranker
from trainer.ranks.collectives import sum_over_ranks
from trainer.run.formulations import settle


class Built(NamedTuple):
    """A model ready to train, with what says where its tables are."""

    model: DistributedModelParallel
    top: nn.Module  # inside the model, as the objective is
    objective: Objective
    optimizer: RankerOptimizer
    plan: Plan
    formulations: dict[str, str]  # which ways to compute were fastest, or are followed


def device_of(worker: Worker) -> torch.device:
    """What this worker trains on."""
    return torch.device("cuda", torch.cuda.current_device()) if worker.device == "cuda" else torch.device("cpu")


def build(
    config: Config,
    device: torch.device,
    local_world_size: int,
    pins: Pins | None,
    formulations: Mapping[str, str] = MappingProxyType({}),
) -> Built:
    """All ranks of the default process group together; the same weights for any number of them.

    `formulations` are followed; those that it lacks are measured.

    Raises:
        UserError: the tables do not fit, or an optimizer does not exist on this device.
    """
    _set_arithmetic(config.training, device)
    tables = build_tables(config, torch.device("meta"))
    if tables is not None:
        attach_sparse_optimizer(tables, config, device)
    world = dist.group.WORLD
    assert world is not None, "cluster made the process group"
    plan = plan_tables(tables, config, dist.get_world_size(), local_world_size, device, pins=pins, group=world)
    torch.manual_seed(config.training.seed)
    top = top_of(config)
    objective = Objective(config, dist.get_world_size())
    check = objective.check
    attach(objective.balance, top, sum_over_ranks if check is None else check.sum_over_ranks)
    formulations = settle(formulations, lambda: _try_out(top, config, device))
    if config.training.precision == "bf16":
        _train_in_bf16(top, device)
    if config.training.compile:
        compile_top(top, device)
    ranker = Ranker(tables, config, top.to(device), objective.to(device), check)
    model = shard(ranker, plan, device, world, room=config.input_layout.dense_width)
    initialize_tables(model, config)
    optimizer = combined_optimizer(model, config.training)
    optimizer.initialize_state()
    if check is not None:
        optimizer.is_left_out = check.is_left_out
    return Built(model, top, objective, optimizer, plan, formulations)


def _try_out(top: nn.Module, config: Config, device: torch.device) -> None:
    """What a step computes in several ways, once. A GPU has one way each, and a deterministic run takes the first."""
    if device.type != "cpu" or config.training.deterministic:
        return
    if config.tables:
        try_updates(max(table.embedding_dim for table in config.tables.values()))
    if config.training.compile:
        return
    rows = max(1, config.data.global_batch_size // dist.get_world_size())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, config.input_layout.width, generator=generator).requires_grad_()
    with uncombined(top):
        top.eval()
        logits, _ = top(x)
        logits.sum().backward()
    top.train()
    top.zero_grad()


def compile_top(top: nn.Module, device: torch.device) -> None:
    """On a GPU its kernels are launched together, as CUDA graphs: a small top waits for launches most of the time."""
    top.compile(dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)


def _set_arithmetic(training: TrainingConfig, device: torch.device) -> None:
    """What is a setting of the process: how a GPU rounds inputs of matrix products, and in which order it adds."""
    if device.type != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = training.precision == "tf32"
    if training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first matrix product
        # Metrics count with kernels that have no fixed order; they are not fed back, so a warning is enough.
        torch.use_deterministic_algorithms(True, warn_only=True)


def _train_in_bf16(top: nn.Module, device: torch.device) -> None:
    """Training alone: an evaluation measures what is served, and that is computed in 32 bits."""
    forward = top.forward

    def in_bf16(*inputs: Tensor) -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=top.training):
            return forward(*inputs)

    top.forward = in_bf16
