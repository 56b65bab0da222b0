"""Examples per second of the whole trainer, beside the same step fed from memory.

    python -m benchmarks.end_to_end CONFIG [key=value ...] [--steps 150] [--rounds 3] [--json]

One worker, in this process, without Ray: reader, transforms, sharded tables, top, both optimizers. The yardstick is the
same model and pipeline given batches that were read before. The two take turns, so that a busy machine slows both.
`--json` ends with one object: `examples_per_second`, `from_memory`, `end_to_end_vs_memory`, `data_wait_share`.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import cycle, islice

import torch
import torch.distributed as dist
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from cluster.launch import Worker
from configs.load import load_config
from embeddings.features import FeatureTransforms
from trainer.build import build, device_of
from trainer.data.batch import Batch
from trainer.data.reader import Reader
from trainer.data.scan import build_manifest
from trainer.jobs import generate_missing, with_absolute_paths

WARM_UP = 20


def drive(pipeline: TrainPipelineSparseDist, batches: Iterable[Batch], steps: int) -> float:
    """Seconds of `steps` steps."""
    source, started = iter(batches), time.perf_counter()
    for _ in range(steps):
        pipeline.progress(source)
    return time.perf_counter() - started


def epochs(reader: Reader) -> Iterable[Batch]:
    for epoch in range(2**31):
        yield from reader.batches(epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
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
    streamed, batch = epochs(reader), config.data.global_batch_size
    kept = list(islice(epochs(reader), WARM_UP))
    drive(pipeline, kept, WARM_UP)
    speeds: dict[str, list[float]] = {"examples_per_second": [], "from_memory": [], "data_wait_share": []}
    for _ in range(arguments.rounds):
        pipeline.reset()
        speeds["from_memory"].append(arguments.steps * batch / drive(pipeline, cycle(kept), arguments.steps))
        pipeline.reset()
        waited = reader.wait_seconds
        seconds = drive(pipeline, streamed, arguments.steps)
        speeds["examples_per_second"].append(arguments.steps * batch / seconds)
        speeds["data_wait_share"].append((reader.wait_seconds - waited) / seconds)
    values = {name: statistics.median(numbers) for name, numbers in speeds.items()}
    ratios = [a / b for a, b in zip(speeds["examples_per_second"], speeds["from_memory"], strict=True)]
    values["end_to_end_vs_memory"] = statistics.median(ratios)
    for name, value in values.items():
        print(f"{name:<24}{value:>14,.3f}", file=sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        print(json.dumps(values), flush=True)
    sys.stdout.flush()
    os._exit(0)  # the reader's threads are in the middle of an epoch


if __name__ == "__main__":
    main()
