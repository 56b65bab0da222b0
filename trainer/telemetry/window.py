"""From steps to records: what is accumulated between two log lines of training, or over one evaluation.

A step costs a few small kernels and no synchronization; closing a window reduces over ranks, so every rank closes
the same windows. Printing and writing the records is left to `console` and `tensorboard`.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from configs.schema import TaskConfig
from trainer.ranker import Outputs
from trainer.ranks.collectives import Group, gather_over_ranks, sum_over_ranks
from trainer.telemetry.curves import task_curves
from trainer.telemetry.gates import GateTelemetry
from trainer.telemetry.memory import Memory, measure
from trainer.telemetry.metrics import TaskMetrics, TaskValues
from trainer.telemetry.records import EvalRecord, StepRecord
from trainer.telemetry.slow_rank import awake_seconds


class TrainingWindow:
    """The steps since the last log line."""

    def __init__(
        self,
        tasks: Mapping[str, TaskConfig],
        binary: Collection[str],
        device: torch.device,
        *,
        total_steps: int | None = None,
        group: Group = None,
    ) -> None:
        """binary: tasks whose predictions are probabilities. total_steps: the last step of the run, for the ETA."""
        self.device, self.total_steps, self.group = device, total_steps, group
        self._weights = {name: task.weight for name, task in tasks.items()}
        self._metrics = TaskMetrics(list(tasks), binary, device, keep_all=False)
        self._gates = GateTelemetry(list(tasks))
        self._totals = torch.zeros(3, dtype=torch.float64, device=device)  # objective, rows, steps with a sound loss
        self._steps = 0
        self._wait = 0.0  # the reader's total when the window began
        self._pace: float | None = None  # smoothed seconds a step
        self._began, self._awake = time.perf_counter(), awake_seconds()

    def add(self, outputs: Outputs) -> None:
        """Take in one step of this rank."""
        self._metrics.update(outputs.predictions, outputs.labels, outputs.weights, outputs.task_losses)
        self._gates.update(outputs.gates, outputs.weights)
        self._totals += torch.stack((outputs.loss.double(), _rows(outputs.weights), outputs.is_sound.double()))
        self._steps += 1

    def state(self) -> dict[str, Tensor]:
        """What this rank has of the window, to be saved amid it; its times are not, which no failure repeats."""
        own = {"totals": self._totals, "steps": torch.tensor(self._steps)}
        own |= {f"metrics/{name}": value for name, value in self._metrics.state().items()}
        return own | {f"gates/{name}": value for name, value in self._gates.state().items()}

    def load_state(self, of_ranks: Sequence[Mapping[str, Tensor]], rank: int, world_size: int) -> None:
        """Goes on amid a window.

        Args:
            of_ranks: what `state` was on the ranks that saved it. If today's are more or fewer, they share it out.
        """
        mine = list(of_ranks[rank::world_size])
        if not of_ranks:
            return
        self._steps = int(of_ranks[0]["steps"])
        if not mine:
            return
        self._totals.copy_(torch.stack([state["totals"] for state in mine]).sum(0))
        self._metrics.load_state(*[_below("metrics/", state) for state in mine])
        gates = [_below("gates/", state) for state in mine]
        together = {name: torch.stack([each[name] for each in gates]).sum(0) for name in gates[0]}
        self._gates.load_state({name: value.to(self.device) for name, value in together.items()})

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here (an evaluation) does not count as training."""
        left, awake = time.perf_counter(), awake_seconds()
        yield
        self._began += time.perf_counter() - left
        self._awake += awake_seconds() - awake

    def record(
        self,
        step: int,
        epoch: int,
        wait_seconds: float,
        learning_rates: Mapping[str, float],
        extra: Mapping[str, float] | None = None,
    ) -> StepRecord:
        """The record of the window, the same on every rank.

        step: steps done. wait_seconds: the reader's running total. extra: further scalars by tag, as they are.
        """
        assert self._steps > 0, "a window of at least one step"
        tasks, gates = self._metrics.compute(self.group), self._gates.compute(self.group)
        totals = sum_over_ranks(self._totals, self.group).tolist()  # waits for the device: time is exact now
        objective, rows, sound = totals
        seconds = time.perf_counter() - self._began
        seconds, wait, memory, own = self._worst(seconds, wait_seconds - self._wait)
        return StepRecord(
            step=step,
            total_steps=self.total_steps,
            epoch=epoch,
            loss=_total(tasks, self._weights),
            objective=objective / max(sound, 1.0),
            tasks=tasks,
            examples_per_second=rows / seconds,
            step_seconds=seconds / self._steps,
            data_wait_share=min(wait / seconds, 1.0),
            memory=memory,
            eta_seconds=self._eta(step, seconds / self._steps),
            learning_rates=dict(learning_rates),
            gates=gates,
            own_seconds=own,
            extra=dict(extra or {}),
        )

    def _worst(self, seconds: float, wait: float) -> tuple[float, float, Memory, tuple[float, ...]]:
        """Each the largest over ranks, and of each rank its own part; limits are this rank's."""
        memory, own = measure(self.device), awake_seconds() - self._awake + wait
        mine = [seconds, wait, memory.rss, memory.host, memory.gpu or 0.0, own]
        of_ranks = gather_over_ranks(torch.tensor(mine, dtype=torch.float64, device=self.device), self.group)
        seconds, wait, rss, host, gpu, _ = of_ranks.max(0).values.tolist()
        on_gpu = memory.gpu is not None
        memory = Memory(rss, host, memory.host_limit, gpu if on_gpu else None, memory.gpu_limit)
        return seconds, wait, memory, () if on_gpu else tuple(of_ranks[:, -1].tolist())

    def _eta(self, step: int, step_seconds: float) -> float | None:
        self._pace = step_seconds if self._pace is None else 0.7 * self._pace + 0.3 * step_seconds
        return None if self.total_steps is None else (self.total_steps - step) * self._pace

    def restart(self, wait_seconds: float) -> None:
        """The next window begins."""
        self._metrics.restart()
        self._gates.restart()
        self._totals.zero_()
        self._steps, self._wait, self._began, self._awake = 0, wait_seconds, time.perf_counter(), awake_seconds()


class Evaluation:
    """One pass over a part of the data; every row once."""

    def __init__(
        self,
        tasks: Mapping[str, TaskConfig],
        binary: Collection[str],
        device: torch.device,
        *,
        group: Group = None,
    ) -> None:
        self.group = group
        self._weights = {name: task.weight for name, task in tasks.items()}
        self._metrics = TaskMetrics(list(tasks), binary, device, keep_all=True)
        self._gates = GateTelemetry(list(tasks))
        self._rows = torch.zeros((), dtype=torch.float64, device=device)
        self._first: Outputs | None = None
        self._began = time.perf_counter()

    def add(self, outputs: Outputs, groups: Tensor | None = None) -> None:
        """Take in one batch of this rank. groups: [B] int64, for GAUC."""
        self._metrics.update(outputs.predictions, outputs.labels, outputs.weights, outputs.task_losses, groups)
        self._gates.update(outputs.gates, outputs.weights)
        self._rows += _rows(outputs.weights)
        self._first = self._first or outputs

    def close(
        self,
        step: int,
        epoch: int,
        quarantined_rows: int | None = None,
        dropped_shares: Mapping[str, float] | None = None,
    ) -> EvalRecord:
        """The record, the same on every rank but for its sample. quarantined_rows, dropped_shares: over all ranks."""
        tasks, gates = self._metrics.compute(self.group), self._gates.compute(self.group)
        binary = [name for name in tasks if name in self._metrics.binary]
        curves = {name: task_curves(*self._metrics.kept(name)[:3], self.group) for name in binary}
        rows = int(sum_over_ranks(self._rows, self.group))
        seconds = time.perf_counter() - self._began
        loss, sample = _total(tasks, self._weights), self._sample()
        dropped = dropped_shares or {}
        return EvalRecord(step, epoch, loss, tasks, rows, seconds, gates, curves, sample, quarantined_rows, dropped)

    def _sample(self) -> dict[str, tuple[float, float]]:
        """Prediction and label of this rank's first row; NaN where the label is missing."""
        if self._first is None:
            return {}
        labels = self._first.labels[0].where(self._first.weights[0] > 0, torch.nan)
        return dict(
            zip(self._weights, zip(self._first.predictions[0].tolist(), labels.tolist(), strict=True), strict=True)
        )


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _rows(weights: Tensor) -> Tensor:
    """[]: rows that count for any task. weights: [B, T]."""
    return (weights > 0).any(dim=1).sum().double()


def _total(tasks: TaskValues, weights: Mapping[str, float]) -> float:
    """Tasks that only watch (weight 0), and tasks without a labelled row in the window, add nothing."""
    return sum(weights[name] * values["loss"] for name, values in tasks.items() if weights[name] and values["rows"])
