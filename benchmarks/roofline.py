"""The trainer's step against the limit of this machine, part by part.

    python -m benchmarks.roofline CONFIG [key=value ...] [--steps 8] [--rounds 5] [--json]
    python -m benchmarks.roofline top:SIZE [--steps 8] [--rounds 5] [--json]
    python -m benchmarks.roofline CONFIG --workers 2

The limit is the time that the step's floating-point operations take at the peak of this machine's matrix products, plus
the time that the bytes which must move take at the rate of a large copy; both speeds are measured in the same run,
between the steps. What is counted stands in benchmarks/step_costs.py. `top:SIZE` is the top alone, at a size of
benchmarks/top.py (reference, middle, large): forward, backward to its input too, and the dense optimizer.

One worker without Ray, one thread, FP32, batches held in memory. Times are the thread's own, medians over steps, so
that they do not add up exactly. The step is measured in turns with and without the borders of its parts: `step` is
without them, and has all the process's CPU time; what other threads spend of it (gloo's) is a row. The parts:

    input               a batch comes into the pipeline
    exchange of IDs, exchange of rows
                        with the ranks that hold the tables; a worker that is alone has none
    tables forward      pooled rows are looked up
    join                they and the dense features become the top's input, and its gradient theirs
    top forward, loss (both directions, predictions), top backward
    tables backward     with their fused optimizer
    all-reduce          what is waited for gradients of other ranks
    dense optimizer
    rest                what the pipeline does around all that
    other threads

`--workers` N compares the step of one worker with that of N which share its batch (benchmarks/second_worker.py).

`--json` ends with one object: `share_of_limit` is the limit over the step; `step_ms`, `limit_ms`, `peak_gflops`,
`copy_gb_per_second`, and `parts`: a row for each with `ms`, `limit_ms`, `share`, `gflop` and `mb`. With
`--workers`: `speedup`, the one's step over theirs by the clock, `speedup_without_waiting`, the same in CPU time,
`ddp_speedup`, by the clock with DistributedDataParallel's buckets; and `parts` with `share_ms`, the Nth part of the
one's CPU time, `cpu_ms`, `cost_ms` beyond the share, `ms` by the clock and `waited_ms` of it.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from benchmarks import second_worker
from benchmarks.laps import PARTS, Laps, watch_step, watch_top
from benchmarks.machine import Machine
from benchmarks.one_worker import TrainersStep, finish, keep_batches, parser, start
from benchmarks.step_costs import Cost, dense_optimizer_cost, loss_cost, step_costs, top_cost
from benchmarks.top import SIZES, BatchedMMoE, keep_freed_memory, step_of
from trainer.build import build

KEPT, WARM_UP = 16, 5  # batches, steps


class Measured(NamedTuple):
    """Seconds of a step, and of each of its parts."""

    step: float
    parts: Mapping[str, float]


def main() -> None:
    options = parser(__doc__, steps=8, rounds=5)
    options.add_argument("--workers", type=int, default=1, help="what more than one cost")
    arguments = options.parse_args()
    if arguments.workers > 1:
        values = second_worker.measure(arguments)
        finish(values, arguments.json, second_worker.table(values))
    if not arguments.config.startswith("top:"):
        measured, machine, costs = the_step(arguments)
    elif arguments.config.removeprefix("top:") in SIZES:
        measured, machine, costs = the_top(arguments)
    else:
        options.error(f"{arguments.config}: sizes are {', '.join(SIZES)}")
    values = compared(measured, machine, costs)
    finish(values, arguments.json, table(values))


def the_step(arguments: argparse.Namespace) -> tuple[Measured, Machine, dict[str, Cost]]:
    """The trainer's step of a config."""
    config, device, reader = start(arguments, "benchmarks.roofline")
    torch.set_num_threads(1)
    batches = keep_batches(reader, KEPT)
    built = build(config, device, 1, None)
    step, laps, machine = TrainersStep(built, config, device, batches), Laps(), Machine()
    for _ in range(WARM_UP):
        step()
    watch_step(laps, built, step.pipeline)
    measured = measure(step, laps, machine, "rest", arguments)
    return measured, machine, step_costs(config, batches, built.optimizer)


def the_top(arguments: argparse.Namespace) -> tuple[Measured, Machine, dict[str, Cost]]:
    """The top alone, at one of benchmarks/top.py's sizes."""
    keep_freed_memory()
    torch.set_num_threads(1)
    size = SIZES[arguments.config.removeprefix("top:")]
    model = BatchedMMoE(size)
    step, laps, machine = step_of(model, size, "fp32", "cpu", fused=True), Laps(), Machine()
    step()
    watch_top(laps, model.top, "rest")
    measured = measure(step, laps, machine, "dense optimizer", arguments)
    with torch.device("meta"):
        forward, backward = top_cost(BatchedMMoE(size).top, size.batch, size.input_dim, size.input_dim)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        measured,
        machine,
        {
            "top forward": forward,
            "loss": loss_cost(size.batch, size.tasks),
            "top backward": backward,
            "dense optimizer": dense_optimizer_cost(parameters, "adam"),
        },
    )


def measure(
    step: Callable[[], object], laps: Laps, machine: Machine, last: str, arguments: argparse.Namespace
) -> Measured:
    """In each round some steps without laps, as many with them, and the machine's speeds. `last`: part of a step."""
    whole, others = [], []
    for _ in range(arguments.rounds):
        machine.measure()
        for _ in range(arguments.steps):
            of_process, of_thread = time.process_time(), time.thread_time()
            step()
            of_thread, of_process = time.thread_time() - of_thread, time.process_time() - of_process
            whole.append(of_process)
            others.append(max(0.0, of_process - of_thread))
        for _ in range(arguments.steps):
            laps.start()
            step()
            laps.stop(last)
    return Measured(statistics.median(whole), laps.medians() | {"other threads": statistics.median(others)})


def compared(measured: Measured, machine: Machine, costs: Mapping[str, Cost]) -> dict[str, Any]:
    """What `--json` ends with."""
    peak, rate = machine.peak, machine.copy_rate
    limit = sum(cost.seconds(peak, rate) for cost in costs.values())
    parts = {}
    for part in (part for part in PARTS if part in measured.parts or part in costs):
        seconds, cost = measured.parts.get(part, 0.0), costs.get(part, Cost())
        least = cost.seconds(peak, rate)
        parts[part] = {
            "ms": seconds * 1e3,
            "limit_ms": least * 1e3,
            "share": least / seconds if seconds else None,
            "gflop": cost.flops / 1e9,
            "mb": cost.bytes / 1e6,
        }
    return {
        "share_of_limit": limit / measured.step,
        "step_ms": measured.step * 1e3,
        "limit_ms": limit * 1e3,
        "peak_gflops": peak / 1e9,
        "copy_gb_per_second": rate / 1e9,
        "parts": parts,
    }


def table(values: Mapping[str, Any]) -> list[str]:
    """For the screen."""
    lines = [f"{'part':<18}{'ms':>10}{'of step':>9}{'limit, ms':>11}{'share':>8}{'GFLOP':>9}{'MB':>9}"]
    step, parts = values["step_ms"], values["parts"]
    for part, row in parts.items():
        share = f"{row['share']:.2f}" if row["limit_ms"] and row["share"] else "-"
        counted = f"{row['gflop']:>9.3f}{row['mb']:>9.2f}"
        lines.append(f"{part:<18}{row['ms']:>10.3f}{row['ms'] / step:>9.1%}{row['limit_ms']:>11.3f}{share:>8}{counted}")
    gflop, mb = (sum(row[key] for row in parts.values()) for key in ("gflop", "mb"))
    share = f"{values['share_of_limit']:.2f}"
    lines.append(f"{'step':<18}{step:>10.3f}{'':>9}{values['limit_ms']:>11.3f}{share:>8}{gflop:>9.3f}{mb:>9.2f}")
    speeds = f"{values['peak_gflops']:.1f} GFLOP/s, {values['copy_gb_per_second']:.1f} GB/s"
    return [*lines, f"one thread of this machine: {speeds}"]


if __name__ == "__main__":
    main()
