"""Shows a sharding plan: a table for the screen and plan.txt, and plain data for JSON.

`plan_report` also makes the plan, for the cluster that `launch` describes: none of it need be here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap
from typing import Any

import torch

from configs.schema import Config
from configs.text_table import text_table
from embeddings.optimizer import attach_sparse_optimizer
from embeddings.planning.plan import Plan, TablePlan
from embeddings.planning.planner import plan_tables
from embeddings.planning.topology import GIB
from embeddings.tables import build_tables

_WIDEST = 100
_HEADER = ("table", "rows", "width", "GiB", "sharding", "kernel", "ranks")
_NUMBERS = {1, 2, 3}  # columns of them


@dataclass(frozen=True)
class PlanReport:
    """A plan, for people and for programs."""

    plan: Plan
    most_tables: int = 24  # larger ones first; the rest share a line

    @property
    def text(self) -> str:
        """Lines of at most 100 columns: a row a table, then how even memory and work are, then notes."""
        lines = [line[:_WIDEST] for line in (*self._table(), *self._balance())]
        for note in self.plan.notes:
            lines += wrap(note, _WIDEST, subsequent_indent="  ")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """`Plan.to_json` with totals and imbalances (the largest rank over the mean)."""
        return self.plan.to_json() | {
            "bytes": sum(table.bytes for table in self.plan.tables.values()),
            "bytes_per_rank": self.plan.bytes_per_rank(),
            "work_ms_per_rank": self.plan.work_per_rank(),
            "memory_imbalance": imbalance(self.plan.bytes_per_rank()),
            "work_imbalance": imbalance(self.plan.work_per_rank()),
        }

    def _table(self) -> Iterable[str]:
        tables = sorted(self.plan.tables.items(), key=lambda item: -item[1].bytes)
        shown, rest = tables[: self.most_tables], [table for _, table in tables[self.most_tables :]]
        rows = [_HEADER, *(_row(name, table) for name, table in shown)]
        if rest:
            total = sum(table.bytes for table in rest)
            rows.append((f"{len(rest)} smaller", "", "", _gib(total), "", "", ""))
        return text_table(rows, right=_NUMBERS) if shown else ["no tables: all parameters are replicated"]

    def _balance(self) -> Iterable[str]:
        plan = self.plan
        if not plan.tables:
            return
        memory, work = plan.bytes_per_rank(), plan.work_per_rank()
        total = sum(table.bytes for table in plan.tables.values())
        yield (
            f"{_gib(total)} GiB of weights and optimizer state on {plan.world_size} x {plan.device}: "
            f"{_gib(min(memory))} to {_gib(max(memory))} of {_gib(plan.capacity)} GiB each"
        )
        yield f"imbalance (largest rank / mean): memory {imbalance(memory):.2f}, estimated work {imbalance(work):.2f}"


def plan_report(config: Config) -> PlanReport:
    """The plan for `launch.workers` on `launch.device`, `launch.workers_per_host` a host, of `launch.memory_gib` each.

    It needs no GPU and no process group; tables of any size are planned on the meta device.

    Raises:
        UserError: the tables do not fit, or a GPU's memory is neither given nor here to be measured.
    """
    launch = config.launch
    kind = launch.device if launch.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(kind)
    tables = build_tables(config, torch.device("meta"))
    if tables is not None:
        attach_sparse_optimizer(tables, config, device)
    local_world_size = min(launch.workers_per_host or launch.workers, launch.workers)
    return PlanReport(plan_tables(tables, config, launch.workers, local_world_size, device))


def imbalance(per_rank: Sequence[float]) -> float:
    """The largest over the mean: 1 is even, the number of ranks is all on one; 1 when there is nothing."""
    mean = sum(per_rank) / len(per_rank)
    return max(per_rank) / mean if mean else 1.0


def ranges(ranks: Sequence[int]) -> str:
    """Sorted ranks in short: 0-3,8."""
    if not ranks:
        return ""
    breaks = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(ranks)) if b != a + 1), len(ranks)]
    runs = [(ranks[start], ranks[end - 1]) for start, end in pairwise(breaks)]
    return ",".join(f"{first}-{last}" if first != last else f"{first}" for first, last in runs)


def _row(name: str, table: TablePlan) -> tuple[str, ...]:
    return (
        _cut(name, 28),
        f"{table.num_embeddings:,}",
        f"{table.embedding_dim}",
        _gib(table.bytes),
        table.sharding,
        table.kernel,
        _cut(ranges(table.ranks), 10),
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}" if size >= 10 * GIB else f"{size / GIB:.3f}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"
