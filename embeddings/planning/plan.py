"""A sharding plan as data: which ranks hold which part of which table, what that costs, and its JSON form.

`planner` makes it, `embeddings.sharding` carries it out, `plan_report` shows it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torchrec.distributed.types import EmbeddingModuleShardingPlan


@dataclass(frozen=True)
class TableShard:
    """A rectangle of a table on one rank."""

    rank: int
    row: int
    column: int
    rows: int
    columns: int
    fast_bytes: int  # of GPU memory, or of the host's on CPU: weights, optimizer state, estimated buffers of a step
    work_ms: float  # the planner's estimate of its time in a step; only ratios mean much


@dataclass(frozen=True)
class TablePlan:
    """How one table is cut, and where its parts go."""

    num_embeddings: int
    embedding_dim: int
    sharding: str
    kernel: str
    bytes: int  # weights and optimizer state, over all ranks
    shards: tuple[TableShard, ...]

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(sorted({shard.rank for shard in self.shards}))


@dataclass(frozen=True)
class Plan:
    """The plan of all tables of a run; the same on every rank."""

    world_size: int
    device: str
    capacity: int  # bytes that tables may fill on each rank: GPU memory, or the host's on CPU
    tables: dict[str, TablePlan]
    notes: tuple[str, ...] = ()  # what a user should know: tables in host memory, types that changed
    placement: EmbeddingModuleShardingPlan = field(default_factory=EmbeddingModuleShardingPlan, compare=False)

    def bytes_per_rank(self) -> list[int]:
        return [int(total) for total in self._per_rank("fast_bytes")]

    def work_per_rank(self) -> list[float]:
        return self._per_rank("work_ms")

    def _per_rank(self, what: str) -> list[float]:
        totals = [0.0] * self.world_size
        for table in self.tables.values():
            for shard in table.shards:
                totals[shard.rank] += getattr(shard, what)
        return totals

    def digest(self) -> int:
        """A number that tells plans apart: the same in every process, below 2^63."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dump`; `Pins.from_json` reads it back."""
        return {
            "world_size": self.world_size,
            "device": self.device,
            "capacity_bytes": self.capacity,
            "tables": {name: asdict(table) for name, table in self.tables.items()},
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Pins:
    """The sharding types of a run's former plan, which its checkpoints were written with."""

    sharding: Mapping[str, str]

    @classmethod
    def from_json(cls, plan: Mapping[str, Any]) -> "Pins":
        """From `Plan.to_json`'s data."""
        return cls({name: table["sharding"] for name, table in plan["tables"].items()})
