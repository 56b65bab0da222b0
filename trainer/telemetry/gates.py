"""How the gates share out the experts: load, entropy and dead experts, over the rows of a window and all ranks.

A gate gives every row a distribution over experts. Its load is the mean of these; its entropy says how undecided it
is row by row (1: all experts alike, 0: always one). An expert that no gate uses is dead: polarization, which dropout
and noise on gates work against. Drawing is left to `pictures`.

B batch, G gates, E experts, T tasks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.ranks.collectives import Group, sum_over_ranks

_TINY = torch.finfo(torch.float32).tiny
DEAD_BELOW = 0.01  # times an equal share 1/E


@dataclass(frozen=True)
class GateUse:
    """One level's gates over a window."""

    names: tuple[str, ...]  # of the gates: their tasks
    load: tuple[tuple[float, ...], ...]  # [G][E] mean weight of each expert, sums to 1 over E
    entropy: tuple[float, ...]  # [G] mean over rows, in [0, 1]
    dead: tuple[int, ...]  # experts to which every gate gives less than 1% of an equal share


class GateTelemetry:
    """Accumulates one window of gate weights. Nothing is kept of the rows themselves."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        self._sums: dict[str, Tensor] = {}  # level -> [G, E + 2]: load sums, entropy sum, rows

    @torch.no_grad()
    def update(self, gates: Mapping[str, Tensor], label_weights: Tensor) -> None:
        """gates: level -> [B, G, E] softmax weights; label_weights: [B, T], rows where all are zero do not count."""
        counted = (label_weights > 0).any(dim=1)
        rows = counted.sum(dtype=torch.float64)
        for level, weights in gates.items():
            weights = weights.permute(1, 2, 0).float().where(counted, 0.0)  # tops compute them in columns
            load = weights.sum(2, dtype=torch.float64)
            # torch.special.entr takes five times as long on a CPU.
            entropy = (weights * weights.clamp_min(_TINY).log()).sum((1, 2), dtype=torch.float64).abs()
            sums = torch.cat((load, entropy[:, None], rows.expand(len(load), 1)), dim=1)
            self._sums[level] = self._sums[level] + sums if level in self._sums else sums

    def compute(self, group: Group = None) -> dict[str, GateUse]:
        """level -> use over all ranks, the same on each; empty for a top without gates or before any row."""
        if not self._sums:
            return {}
        flat = sum_over_ranks(torch.cat([sums.flatten() for sums in self._sums.values()]), group).cpu()
        parts = flat.split([sums.numel() for sums in self._sums.values()])
        totals = {level: part.view_as(sums) for (level, sums), part in zip(self._sums.items(), parts, strict=True)}
        return {level: self._use(total) for level, total in totals.items() if float(total[0, -1]) > 0}

    def state(self) -> dict[str, Tensor]:
        """The window, for `load_state`."""
        return dict(self._sums)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._sums = dict(state)

    def restart(self) -> None:
        """Begin the next window."""
        self._sums.clear()

    def _use(self, total: Tensor) -> GateUse:
        load = total[:, :-2] / total[:, -1:]
        reachable = (load > 0).sum(1).tolist()  # a gate of PLE sees some of the experts only
        entropy = (total[:, -2] / total[:, -1]).tolist()
        dead = load.amax(0) < DEAD_BELOW / load.shape[1]
        return GateUse(
            names=gate_names(self.tasks, len(load)),
            load=tuple(tuple(row) for row in load.tolist()),
            entropy=tuple(min(e / math.log(n), 1.0) if n > 1 else 0.0 for e, n in zip(entropy, reachable, strict=True)),
            dead=tuple(torch.nonzero(dead).flatten().tolist()),
        )


def gate_names(tasks: Sequence[str], gates: int) -> tuple[str, ...]:
    """A gate a task, then `shared` ones; a single gate for several tasks is called `all`."""
    if gates == 1 and len(tasks) != 1:
        return ("all",)
    shared = [f"shared_{i}" if gates > len(tasks) + 1 else "shared" for i in range(gates - len(tasks))]
    return (*tasks, *shared)[:gates]
