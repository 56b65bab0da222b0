"""Examples per second of the trainer's step in each precision, compiled or not, fed from memory.

    python -m benchmarks.precision CONFIG [key=value ...] [--steps 20] [--rounds 5] [--no-compile] [--json]

One worker, in this process, without Ray: sharded tables, top, both optimizers, one model for each value of
`training.precision` and `training.compile`. They take turns and the fastest turn of each counts; on one core its time
is the thread's own, so that a busy machine disturbs it little. `--json` ends with one object: examples per second by
variant, and the same over FP32's ending in `_speedup`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import cycle, islice

import torch
import torch.distributed as dist
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from cluster.launch import Worker
from configs.load import load_config
from configs.schema import Config
from embeddings.features import FeatureTransforms
from trainer.build import build, device_of
from trainer.data.batch import Batch
from trainer.data.reader import Reader
from trainer.data.scan import build_manifest
from trainer.jobs import generate_missing, with_absolute_paths

KEPT = 8
"""Batches in memory."""


def batches_of(config: Config) -> list[Batch]:
    features = FeatureTransforms(config.features, config.tables)
    manifest = build_manifest(config.data.root, config.data.train)
    reader = Reader(manifest, config.data, features, config.tasks, config.training.seed, 0, 1)
    return list(islice(reader.batches(0), KEPT))


def drive(pipeline: TrainPipelineSparseDist, batches: list[Batch], steps: int) -> float:
    """Seconds of `steps` steps."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    pipeline.reset()
    source = cycle(batches)
    pipeline.progress(source)  # fills the pipeline
    started = clock()
    for _ in range(steps):
        pipeline.progress(source)
    return clock() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--steps", type=int, default=20, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="leave out what takes a minute to start")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    config = with_absolute_paths(load_config(arguments.config, arguments.overrides))
    generate_missing(config, lambda line: print(line, file=sys.stderr))
    torch.set_num_threads(config.launch.cpus_per_worker)  # as the launcher does
    store = tempfile.mktemp(prefix="store-")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    device = device_of(Worker(0, 1, 0, 1, "localhost", "cpu", print))

    kept = batches_of(config)
    pipelines: dict[str, TrainPipelineSparseDist] = {}
    for compiled in (False,) if arguments.no_compile else (False, True):
        for precision in ("fp32", "bf16"):
            choice = {"precision": precision, "compile": compiled}
            training = config.training.model_copy(update=choice)
            built = build(config.model_copy(update={"training": training}), device, 1, None)
            pipeline = TrainPipelineSparseDist(built.model, built.optimizer, device)
            pipelines[f"{precision}_compiled" if compiled else precision] = pipeline
            drive(pipeline, kept, 4)
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    for _ in range(arguments.rounds):
        for name, pipeline in pipelines.items():
            seconds[name].append(drive(pipeline, kept, arguments.steps))
    rows = arguments.steps * config.data.global_batch_size
    values = {name: rows / min(turns) for name, turns in seconds.items()}
    values |= {f"{name}_speedup": values[name] / values["fp32"] for name in pipelines}
    for name, value in values.items():
        print(f"{name:<24}{value:>14,.3f}", file=sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        print(json.dumps(values), flush=True)
    sys.stdout.flush()
    os._exit(0)  # the reader's threads are in the middle of an epoch


if __name__ == "__main__":
    main()
