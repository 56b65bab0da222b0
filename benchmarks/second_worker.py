"""What a second worker costs: the step of one worker, and of two that share its batch, part by part.

Workers are processes of this machine with a gloo group, without Ray, each on one thread. Two that cost nothing would
take half of the one's time for every part. What CPU time each takes beyond that is work that the second one makes: it
is the thread's own for a part, and in `other threads` that of gloo's, which copy and talk to the kernel and want a core
as well. What a part takes by the clock beyond its CPU time is waiting: for the other worker, for gloo's threads, or for
a core that somebody else has. The same step is also measured with DistributedDataParallel's buckets in place
of the one flat all-reduce of the dense gradients.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torchrec.distributed.model_parallel import DefaultDataParallelWrapper

from benchmarks.laps import PARTS, Laps, watch_step
from benchmarks.one_worker import TrainersStep, join_group, keep_batches
from configs.load import load_config
from configs.schema import Config
from trainer.build import Built, build
from trainer.data.reading.allocation import ALLOCATION
from trainer.prepare import generate_missing
from trainer.run.paths import with_absolute_paths

KEPT, WARM_UP = 16, 5  # batches, steps

BUCKETS = "step, DDP's buckets"
Measured = dict[str, float]  # milliseconds: parts by the clock, with " cpu" those of the thread; and of whole steps


class NoExchange:
    """In the place of DenseGradients, where DistributedDataParallel averages."""

    def __init__(self, parameters: object) -> None: ...

    def average(self) -> None: ...


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `--json` ends with: one worker, then arguments.workers of them."""
    config = with_absolute_paths(load_config(arguments.config, arguments.overrides))
    generate_missing(config, lambda line: print(line, file=sys.stderr))
    os.environ |= ALLOCATION  # the workers' processes begin with it
    one, more = (_of_ranks(arguments, world_size) for world_size in (1, arguments.workers))
    return _compared(one, more, arguments.workers)


def _of_ranks(arguments: argparse.Namespace, world_size: int) -> Measured:
    """The mean over ranks of each one's medians."""
    store, result = tempfile.mktemp(prefix="store-"), tempfile.mktemp(prefix="ranks-")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["benchmarks.second_worker"])
    given = vars(arguments), store, world_size, result
    ranks = [server.Process(target=_rank, args=(rank, *given)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert not any(process.exitcode for process in ranks), "a worker failed"
    of_ranks = [json.loads(Path(f"{result}{rank}").read_text()) for rank in range(world_size)]
    return {name: statistics.mean(found[name] for found in of_ranks) for name in of_ranks[0]}


def _rank(rank: int, arguments: Mapping[str, Any], store: str, world_size: int, result: str) -> None:
    config = with_absolute_paths(load_config(arguments["config"], arguments["overrides"]))
    os.environ |= {"LOCAL_WORLD_SIZE": str(world_size)}  # as launchers do; torchrec warns otherwise
    config, device, reader = join_group(config, store, rank, world_size)
    torch.set_num_threads(1)
    batches = keep_batches(reader, KEPT)
    found = _measure(config, device, batches, arguments["steps"], arguments["rounds"])
    Path(f"{result}{rank}").write_text(json.dumps({name: seconds * 1e3 for name, seconds in found.items()}))
    dist.barrier()
    os._exit(0)  # the reader may be amid an epoch


def _measure(config: Config, device: torch.device, batches: Sequence[Any], steps: int, rounds: int) -> Measured:
    """Seconds on this rank."""
    world_size, variants = dist.get_world_size(), {"step": build(config, device, dist.get_world_size(), None)}
    if world_size > 1:
        variants[BUCKETS] = build_with_ddp(config, device)
    calls = {name: TrainersStep(built, config, device, batches) for name, built in variants.items()}
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    laps = Laps()
    watch_step(laps, variants["step"], calls["step"].pipeline)
    turns: dict[str, list[float]] = {}
    found = {}
    for clock, suffix in ((time.perf_counter, ""), (time.thread_time, " cpu")):
        laps.clock = clock
        laps.steps.clear()
        for _ in range(rounds):
            for name, call in calls.items():
                _whole_steps(call, steps, name, turns)
            dist.barrier()
            for _ in range(steps):
                laps.start()
                calls["step"]()
                laps.stop("rest")
        found |= {f"{part}{suffix}": seconds for part, seconds in laps.medians().items()}
    return found | {name: statistics.median(seconds) for name, seconds in turns.items()}


def _whole_steps(call: Callable[[], object], steps: int, name: str, turns: dict[str, list[float]]) -> None:
    """Seconds by the clock and of the process's CPU time; a turn begins together."""
    dist.barrier()
    for _ in range(steps):
        started, cpu, thread = time.perf_counter(), time.process_time(), time.thread_time()
        call()
        thread, cpu, wall = time.thread_time() - thread, time.process_time() - cpu, time.perf_counter() - started
        turns.setdefault(name, []).append(wall)
        turns.setdefault(f"{name} cpu", []).append(cpu)
        if name == "step":
            turns.setdefault("other threads cpu", []).append(max(0.0, cpu - thread))


def build_with_ddp(config: Config, device: torch.device) -> Built:
    """The same model with its dense gradients averaged by DistributedDataParallel, as torchrec does by itself."""
    with (
        mock.patch("embeddings.sharding.WithoutDDP", DefaultDataParallelWrapper),
        mock.patch("embeddings.optimizer.DenseGradients", NoExchange),
    ):
        return build(config, device, dist.get_world_size(), None)


def _compared(one: Measured, two: Measured, world_size: int) -> dict[str, Any]:
    """A row a part, in milliseconds. Parts that a part has not are none."""
    rows = {}
    for part in (*PARTS, "step", BUCKETS):
        if f"{part} cpu" in two:
            ms, cpu, of_one = (
                two.get(part),
                two[f"{part} cpu"],
                one.get(f"{'step' if part == BUCKETS else part} cpu", 0.0),
            )
            share = of_one / world_size
            waited = None if ms is None else ms - cpu
            rows[part] = {"share_ms": share, "cpu_ms": cpu, "cost_ms": cpu - share, "ms": ms, "waited_ms": waited}
    return {
        "workers": world_size,
        "speedup": one["step"] / two["step"],
        "speedup_without_waiting": one["step cpu"] / two["step cpu"],
        "ddp_speedup": one["step"] / two[BUCKETS],
        "parts": rows,
    }


def table(values: Mapping[str, Any]) -> list[str]:
    """For the screen."""
    names = {
        "share_ms": f"one/{values['workers']}",
        "cpu_ms": "CPU",
        "cost_ms": "cost",
        "ms": "clock",
        "waited_ms": "wait",
    }
    lines = [f"{'ms':<22}" + "".join(f"{name:>10}" for name in names.values())]
    for part, row in values["parts"].items():
        lines.append(
            f"{part:<22}" + "".join(f"{'-':>10}" if row[key] is None else f"{row[key]:>10.3f}" for key in names)
        )
    speeds = f"{values['speedup']:.2f} times one, {values['ddp_speedup']:.2f} with DDP's buckets"
    return [*lines, f"{values['workers']} workers: {speeds}; {values['speedup_without_waiting']:.2f} by CPU time"]
