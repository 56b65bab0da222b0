"""Examples per second of the whole trainer, beside the same step fed from memory.

    python -m benchmarks.end_to_end CONFIG [key=value ...] [--steps 150] [--rounds 3] [--json]

One worker, in this process, without Ray: reader, transforms, sharded tables, top, both optimizers, with the allocation
settings and the threads that the launcher gives a worker. The yardstick is the same model and pipeline given batches
that were read before. The two take turns, so that a busy machine slows both. Reading goes on from epoch to epoch, as in
training; how long the first batch of all takes is told apart (`first_batch_seconds`).

The reader has a thread of its own. Where it has to share its core with the step (`taskset -c 0`), the ratio cannot
pass step / (step + reader) in CPU time, which is given as `one_core_bound`; a worker with two CPUs has no such bound.
`--json` ends with one object: these, `examples_per_second`, `from_memory`, `end_to_end_vs_memory`, `data_wait_share`.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import cycle, islice

import torch
import torch.distributed as dist
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from cluster.launch import ALLOCATION, Worker
from configs.load import load_config
from embeddings.features import FeatureTransforms
from trainer.build import build, device_of
from trainer.data.batch import Batch
from trainer.data.reader import Reader
from trainer.data.scan import build_manifest
from trainer.jobs import generate_missing, with_absolute_paths

WARM_UP, KEPT = 20, 20  # steps, batches


def drive(pipeline: TrainPipelineSparseDist, batches: Iterable[Batch], steps: int) -> tuple[float, float]:
    """Seconds of `steps` steps, and CPU seconds of the process, the reader's among them."""
    source, started, cpu = iter(batches), time.perf_counter(), time.process_time()
    for _ in range(steps):
        pipeline.progress(source)
    return time.perf_counter() - started, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ALLOCATION.items()):  # they are read when a process starts
        os.execve(
            sys.executable, [sys.executable, "-m", "benchmarks.end_to_end", *sys.argv[1:]], os.environ | ALLOCATION
        )
    config = with_absolute_paths(load_config(arguments.config, arguments.overrides))
    generate_missing(config, lambda line: print(line, file=sys.stderr))
    torch.set_num_threads(config.launch.cpus_per_worker)  # as the launcher does
    store = tempfile.mktemp(prefix="store-")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    device = device_of(Worker(0, 1, 0, 1, "localhost", "cpu", print))

    features = FeatureTransforms(config.features, config.tables)
    manifest = build_manifest(config.data.root, config.data.train)
    reader = Reader(manifest, config.data, features, config.tasks, config.training.seed, 0, 1)
    built = build(config, device, 1, None)
    pipeline = TrainPipelineSparseDist(built.model, built.optimizer, device)
    batch, found = config.data.global_batch_size, defaultdict(list)
    started = time.perf_counter()
    streamed = reader.batches(0, epochs=2**31)
    kept = list(islice(streamed, 1))
    found["first_batch_seconds"].append(time.perf_counter() - started)
    kept += islice(streamed, KEPT - 1)
    drive(pipeline, cycle(kept), WARM_UP)
    for _ in range(arguments.rounds):
        streamed.close()  # so that the reader's threads rest
        pipeline.reset()
        memory, memory_cpu = drive(pipeline, cycle(kept), arguments.steps)
        pipeline.reset()
        streamed = reader.batches(0, epochs=2**31)
        drive(pipeline, streamed, WARM_UP)
        waited = reader.wait_seconds
        seconds, cpu = drive(pipeline, streamed, arguments.steps)
        found["from_memory"].append(arguments.steps * batch / memory)
        found["examples_per_second"].append(arguments.steps * batch / seconds)
        found["end_to_end_vs_memory"].append(memory / seconds)
        found["one_core_bound"].append(min(1.0, memory_cpu / cpu))
        found["data_wait_share"].append((reader.wait_seconds - waited) / seconds)
    values = {name: statistics.median(numbers) for name, numbers in found.items()}
    for name, value in values.items():
        print(f"{name:<24}{value:>14,.3f}", file=sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        print(json.dumps(values), flush=True)
    sys.stdout.flush()
    os._exit(0)  # the reader's threads are in the middle of an epoch


if __name__ == "__main__":
    main()
