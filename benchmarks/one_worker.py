"""One worker in this process, without Ray: what benchmarks of the trainer's step share.

It has the allocation settings and the threads that the launcher gives a worker, the config's data and its reader; and
its step, fed from batches that are held in memory.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cluster.worker import Worker
from configs.load import load_config
from configs.schema import Config
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.build import Built, device_of
from trainer.data.dataset.scan import build_manifest
from trainer.data.reading.allocation import ALLOCATION
from trainer.data.reading.batch import Batch
from trainer.data.reading.reader import Reader
from trainer.pipeline import train_pipeline
from trainer.prepare import generate_missing
from trainer.ranker import Outputs
from trainer.run.paths import with_absolute_paths


class OneWorker(NamedTuple):
    """What is needed to build and feed a model."""

    config: Config
    device: torch.device
    reader: Reader


class _Parser(argparse.ArgumentParser):
    """Takes overrides behind options, too."""

    def parse_args(self, *arguments: Any, **named: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.parse_intermixed_args(*arguments, **named)


def parser(description: str | None, steps: int, rounds: int) -> argparse.ArgumentParser:
    """CONFIG [key=value ...] --steps --rounds --json."""
    made = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    return join_group(config, tempfile.mktemp(prefix="store-"), 0, 1)


def join_group(config: Config, store: str, rank: int, world_size: int) -> OneWorker:
    """One of `world_size` workers that meet at the file `store`, with paths made absolute and data in place."""
    torch.set_num_threads(config.launch.cpus_per_worker)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    features = FeatureTransforms(config.features, config.tables)
    manifest = build_manifest(config.data.root, config.data.train)
    reader = Reader(manifest, config.data, features, config.tasks, config.training.seed, rank, world_size)
    worker = Worker(rank, world_size, rank, world_size, "localhost", "cpu", print)
    return OneWorker(config, device_of(worker), reader)


def keep_batches(reader: Reader, count: int) -> list[Batch]:
    """The first batches of the data, held in memory; the reader's threads rest from here on."""
    batches = reader.batches(0, epochs=2**31)
    kept = list(islice(batches, count))
    batches.close()
    return kept


def as_read(batches: Sequence[Batch]) -> Iterator[Batch]:
    """They again and again, each as the reader gives it: without what torchrec keeps in one that it has seen."""
    for batch in cycle(batches):
        yield dataclasses.replace(batch, sparse=_without_caches(batch.sparse))


def _without_caches(sparse: KeyedJaggedTensor | None) -> KeyedJaggedTensor | None:
    if sparse is None:
        return None
    return KeyedJaggedTensor(
        keys=sparse.keys(),
        values=sparse.values(),
        weights=sparse.weights_or_none(),
        lengths=sparse.lengths(),
        stride=sparse.stride(),
        length_per_key=list(sparse.length_per_key()),
        offset_per_key=list(sparse.offset_per_key()),
    )


class TrainersStep:
    """A call is one step of the trainer on the next of `batches`, which it takes again and again."""

    def __init__(self, built: Built, config: Config, device: torch.device, batches: Sequence[Batch]) -> None:
        built.model.train()
        training = config.training
        self._rates = {
            "sparse": training.sparse_optimizer.learning_rate,
            "dense": training.dense_optimizer.learning_rate,
        }
        self._built, self._batches = built, as_read(batches)
        self.pipeline = train_pipeline(built, device)

    def __call__(self) -> Outputs:
        self._built.optimizer.set_learning_rates(**self._rates)
        return self.pipeline.progress(self._batches)


def finish(values: Mapping[str, Any], as_json: bool, lines: Iterable[str] | None = None) -> NoReturn:
    """Prints the figures, as `lines` if there are any, and ends the process: the reader may be amid an epoch."""
    for line in lines or [f"{name:<24}{value:>14,.3f}" for name, value in values.items()]:
        print(line, file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(values))
    sys.stdout.flush()
    os._exit(0)
