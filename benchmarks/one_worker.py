"""One worker in this process, without Ray: what benchmarks of the trainer's step share.

It has the allocation settings and the threads that the launcher gives a worker, the config's data and its reader.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

import torch
import torch.distributed as dist

from cluster.worker import Worker
from configs.load import load_config
from configs.schema import Config
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.build import device_of
from trainer.data.dataset.scan import build_manifest
from trainer.data.reading.allocation import ALLOCATION
from trainer.data.reading.reader import Reader
from trainer.prepare import generate_missing
from trainer.run.paths import with_absolute_paths


class OneWorker(NamedTuple):
    """What is needed to build and feed a model."""

    config: Config
    device: torch.device
    reader: Reader


def parser(description: str | None, steps: int, rounds: int) -> argparse.ArgumentParser:
    """CONFIG [key=value ...] --steps --rounds --json."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("config")
    made.add_argument("overrides", nargs="*")
    made.add_argument("--steps", type=int, default=steps, help="of a turn")
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--json", action="store_true")
    return made


def start(arguments: argparse.Namespace, module: str) -> OneWorker:
    """The worker of the config in `arguments`; begins `python -m module` anew if its memory is not set up as one's."""
    if any(os.environ.get(name) != value for name, value in ALLOCATION.items()):  # they are read when a process starts
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], os.environ | ALLOCATION)
    config = with_absolute_paths(load_config(arguments.config, arguments.overrides))
    generate_missing(config, lambda line: print(line, file=sys.stderr))
    torch.set_num_threads(config.launch.cpus_per_worker)
    store = tempfile.mktemp(prefix="store-")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    features = FeatureTransforms(config.features, config.tables)
    manifest = build_manifest(config.data.root, config.data.train)
    reader = Reader(manifest, config.data, features, config.tasks, config.training.seed, 0, 1)
    return OneWorker(config, device_of(Worker(0, 1, 0, 1, "localhost", "cpu", print)), reader)


def finish(values: Mapping[str, float], as_json: bool) -> NoReturn:
    """Prints the figures, and ends the process: the reader's threads are in the middle of an epoch."""
    for name, value in values.items():
        print(f"{name:<24}{value:>14,.3f}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(values))
    sys.stdout.flush()
    os._exit(0)
