"""What a run knows at a log line or an evaluation: one record that console, TensorBoard and metrics.jsonl all show.

`scalars()` is the only place where values get names; the table of the names is in `tensorboard`.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainer.telemetry.curves import TaskCurves
from trainer.telemetry.gates import GateUse
from trainer.telemetry.memory import Memory
from trainer.telemetry.metrics import TaskValues
from trainer.telemetry.slow_rank import ratio

SKIPPED_STEPS = "steps/skipped"  # the tag, in StepRecord.extra


@dataclass(frozen=True)
class StepRecord:
    """Steps since the last record. Values are over all ranks; memory and data wait are those of the worst rank."""

    step: int  # steps done
    total_steps: int | None  # None: the run has no planned end
    epoch: int
    loss: float  # sum over tasks of the config's weight * task loss
    objective: float  # mean over steps of what was minimized
    tasks: TaskValues
    examples_per_second: float
    step_seconds: float
    data_wait_share: float  # of the time, [0, 1]
    memory: Memory
    eta_seconds: float | None
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    gates: Mapping[str, GateUse] = field(default_factory=dict)
    own_seconds: Sequence[float] = ()  # of each rank: without waiting for others; empty where not measured
    extra: Mapping[str, float] = field(default_factory=dict)  # tag -> value, from other parts of the run

    kind = "train"

    def scalars(self) -> dict[str, float]:
        """Tag -> value."""
        values = {"total/loss": self.loss, "total/objective": self.objective} | _task_scalars(self.tasks)
        values |= {
            "speed/examples_per_second": self.examples_per_second,
            "speed/step_ms": 1e3 * self.step_seconds,
            "speed/data_wait_share": self.data_wait_share,
            "memory/rss_gib": self.memory.rss,
            "memory/host_gib": self.memory.host,
        }
        if self.memory.gpu is not None:
            values["memory/gpu_gib"] = self.memory.gpu
        if len(self.own_seconds) > 1:
            values["speed/slowest_rank"] = ratio(self.own_seconds)
        values |= {f"learning_rate/{name}": rate for name, rate in self.learning_rates.items()}
        return values | _gate_scalars(self.gates) | dict(self.extra)


@dataclass(frozen=True)
class EvalRecord:
    """One evaluation: every row of a part of the data once, over all ranks."""

    step: int  # steps trained before it
    epoch: int
    loss: float  # sum over tasks of the config's weight * task loss
    tasks: TaskValues
    rows: int
    seconds: float
    gates: Mapping[str, GateUse] = field(default_factory=dict)
    curves: Mapping[str, TaskCurves] = field(default_factory=dict)  # of binary tasks
    sample: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # prediction and label of the first row
    quarantined_rows: int | None = None  # that could not be read; None where that stops a run
    dropped_shares: Mapping[str, float] = field(default_factory=dict)  # feature -> share of its IDs

    kind = "eval"

    def scalars(self) -> dict[str, float]:
        """Tag -> value; the same tags as a StepRecord's where they mean the same."""
        values = {"total/loss": self.loss} | _task_scalars(self.tasks)
        if self.seconds > 0:
            values["speed/examples_per_second"] = self.rows / self.seconds
        if self.quarantined_rows is not None:
            values["data/quarantined_rows"] = self.quarantined_rows
        values |= {f"data/dropped_share/{feature}": share for feature, share in self.dropped_shares.items()}
        values |= {f"calibration_error/{task}": curves.calibration_error for task, curves in self.curves.items()}
        return values | _gate_scalars(self.gates)


Record = StepRecord | EvalRecord


def to_json(record: Record) -> str:
    """One line of metrics.jsonl: kind, step, epoch, time (Unix seconds), then the scalars; null where undefined."""
    values = {tag: value if math.isfinite(value) else None for tag, value in record.scalars().items()}
    head = {"kind": record.kind, "step": record.step, "epoch": record.epoch, "time": round(time.time(), 3)}
    return json.dumps(head | values)


def _task_scalars(tasks: TaskValues) -> dict[str, float]:
    return {f"{metric}/{task}": value for task, values in tasks.items() for metric, value in values.items()}


def _gate_scalars(gates: Mapping[str, GateUse]) -> dict[str, float]:
    values: dict[str, float] = {}
    for level, use in gates.items():
        values[f"gate_dead_experts/{level}"] = len(use.dead)
        for name, entropy, load in zip(use.names, use.entropy, use.load, strict=True):
            values[f"gate_entropy/{level}/{name}"] = entropy
            values |= {f"gate_load/{level}/{name}/expert_{e}": share for e, share in enumerate(load)}
    return values
