"""Decides where tables live: torchrec's EmbeddingShardingPlanner under the constraints of `TableConfig.sharding`.

Every rank plans for itself and gets the same plan, because all plan for the smallest machine among them. A plan needs
neither a GPU nor, for workers that are not here, a process group.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints
from torchrec.distributed.planner.proposers import GreedyProposer, GridSearchProposer, UniformProposer
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PlannerError, PlannerErrorType, Shard, ShardingOption, Stats
from torchrec.distributed.types import ShardingPlan
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from configs.schema import Config
from embeddings.planning.plan import Pins, Plan, TablePlan, TableShard
from embeddings.planning.sharding_types import allowed_types, check_types
from embeddings.planning.table_memory import does_not_fit, table_bytes
from embeddings.planning.topology import Capacity, least, measure_capacity, topology
from embeddings.sharding import table_sharders

_CACHED = "fused_uvm_caching"
# Tried one after the other: torchrec's planner alone would put tables behind a cache while GPUs stand empty.
_KERNELS = {"cpu": (["fused"],), "cuda": (["fused"], ["fused", _CACHED])}
_TOO_BIG = (PlannerErrorType.INSUFFICIENT_STORAGE, PlannerErrorType.STRICT_CONSTRAINTS, PlannerErrorType.PARTITION)
_MOST_COMBINATIONS = 256  # up to here every combination of types and kernels is tried, above a greedy choice of them


def plan_tables(
    tables: EmbeddingBagCollection | None,
    config: Config,
    world_size: int,
    local_world_size: int,
    device: torch.device,
    *,
    pins: Pins | None = None,
    group: dist.ProcessGroup | None = None,
) -> Plan:
    """A plan for `tables` that fits, and balances estimated work over the ranks.

    Args:
        tables: on meta, with their optimizer attached; None when there are none.
        world_size, local_world_size: workers in all, and on one host.
        device: its type says what to plan for; it need not be here.
        pins: the run's former plan. Its types are kept; tables with `sharding: auto` change between row_wise and
            table_wise, which reshard exactly, only when nothing fits otherwise.
        group: the workers, when they are here: they agree on the least memory among them.

    Raises:
        UserError: the tables do not fit, or a former type cannot become the wanted one.
    """
    capacity = measure_capacity(config.launch, device, local_world_size)
    uneven = False
    if group is not None:
        sizes = [capacity.gpu, capacity.host, local_world_size, -local_world_size]
        gpu, host, local_world_size, negative_largest = least(sizes, device, group)
        capacity, uneven = Capacity(gpu, host), local_world_size != -negative_largest
    if tables is None:
        return Plan(world_size, device.type, capacity.fast, {})
    names = [table.name for table in tables.embedding_bag_configs()]
    problem = _Problem(tables, config, names, world_size, local_world_size, device, capacity)
    check_types(config, names, pins, even_hosts=not uneven and world_size % local_world_size == 0)
    for kernels in _KERNELS[device.type]:
        for free in (False, True) if pins else (True,):
            types = {name: allowed_types(config, name, world_size, local_world_size, pins, free=free) for name in names}
            solution = problem.solve(types, kernels)
            plan = _plan(problem, solution, pins) if solution else None
            if plan and max(plan.bytes_per_rank()) <= capacity.fast:
                return plan
    raise does_not_fit(config, names, capacity, world_size)


class _KeepOptions(Stats):
    """In the place of torchrec's report: keeps the chosen options, which carry memory and work of every shard."""

    def __init__(self) -> None:
        self.options: Sequence[ShardingOption] = ()

    def log(self, *, best_plan: list[ShardingOption], **_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.options = best_plan


class _Solution(NamedTuple):
    """torchrec's plan, and the options it chose."""

    placement: ShardingPlan
    options: Sequence[ShardingOption]


@dataclass(frozen=True)
class _Problem:
    """What the planner is asked, whatever the sharding types."""

    tables: EmbeddingBagCollection
    config: Config
    names: Sequence[str]
    world_size: int
    local_world_size: int
    device: torch.device
    capacity: Capacity

    def solve(self, types: Mapping[str, Sequence[str]], kernels: list[str]) -> _Solution | None:
        """A plan with tables of these types and kernels; None when nothing fits."""
        kept = _KeepOptions()
        planner = EmbeddingShardingPlanner(
            topology=topology(self.device, self.world_size, self.local_world_size, self.capacity),
            batch_size=max(1, self.config.data.global_batch_size // self.world_size),
            constraints={name: self._constraints(name, types[name], kernels) for name in self.names},
            proposer=[
                GridSearchProposer(_MOST_COMBINATIONS),
                GreedyProposer(),
                GreedyProposer(use_depth=False),
                UniformProposer(),
            ],
            storage_reservation=FixedPercentageStorageReservation(0.0),
            stats=[kept],
            debug=False,
        )
        quiet = logging.root.manager.disable
        logging.disable(logging.WARNING)  # torchrec tells the root logger of every data-parallel table
        try:
            return _Solution(planner.plan(self.tables, table_sharders()), kept.options)
        except PlannerError as error:
            if error.error_type not in _TOO_BIG:
                raise
            return None
        finally:
            logging.disable(quiet)

    def _constraints(self, name: str, types: Sequence[str], kernels: list[str]) -> ParameterConstraints:
        features = [feature for feature in self.config.sparse_features.values() if feature.table == name]
        return ParameterConstraints(
            sharding_types=list(types),
            compute_kernels=["dense"] if "data_parallel" in types else kernels,
            pooling_factors=[float(feature.max_length or 1) for feature in features],
        )


def _plan(problem: _Problem, solution: _Solution, pins: Pins | None) -> Plan:
    tables = {option.name: _table_plan(problem, option) for option in solution.options}
    cached = [name for name, table in tables.items() if table.kernel == _CACHED]
    wanted = {name: problem.config.tables[name].sharding for name in tables}
    whole = [name for name, table in tables.items() if wanted[name] not in ("auto", table.sharding)]
    changed = [name for name, table in tables.items() if pins and pins.sharding.get(name) not in (None, table.sharding)]
    notes = []
    if cached:
        notes.append(f"in host memory behind a GPU cache, as the GPUs are too small (slower): {', '.join(cached)}")
    if whole and problem.world_size > 1:
        notes.append(f"held whole, as they have too few rows for all workers: {', '.join(whole)}")
    if changed:
        notes.append(f"resharded exactly, as the config, the workers or their memory changed: {', '.join(changed)}")
    order = {name: tables[name] for name in problem.names}
    (placement,) = solution.placement.plan.values()
    return Plan(
        problem.world_size,
        problem.device.type,
        problem.capacity.fast,
        order,
        tuple(notes),
        placement,  # pyright: ignore[reportArgumentType]
    )


def _table_plan(problem: _Problem, option: ShardingOption) -> TablePlan:
    shards = tuple(_shard(problem, option, shard) for shard in option.shards)
    return TablePlan(
        num_embeddings=option.tensor.shape[0],
        embedding_dim=option.tensor.shape[1],
        sharding=option.sharding_type,
        kernel=option.compute_kernel,
        bytes=sum(table_bytes(problem.config, option.name, shard.rows, shard.columns) for shard in shards),
        shards=shards,
    )


def _shard(problem: _Problem, option: ShardingOption, shard: Shard) -> TableShard:
    assert shard.storage is not None
    assert shard.perf is not None
    assert shard.rank is not None
    (row, column), (rows, columns) = shard.offset, shard.size
    on_gpu = problem.device.type == "cuda"
    fast = shard.storage.hbm if on_gpu else shard.storage.ddr
    if option.compute_kernel != _CACHED:  # torchrec counts fp16 and data-parallel tables short
        fast = max(fast, table_bytes(problem.config, option.name, rows, columns))
    return TableShard(shard.rank, row, column, rows, columns, fast, shard.perf.total)
