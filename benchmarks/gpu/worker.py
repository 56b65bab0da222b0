"""One worker on one device without Ray, fed with random rows: what the parts of benchmarks.gpu share."""

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from benchmarks.one_worker import as_read
from configs.load import load_config
from configs.schema import Config
from trainer.build import Built, build
from trainer.data.reading.batch import Batch
from trainer.pipeline import train_pipeline
from trainer.ranker import Outputs

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def open_group(device: str) -> torch.device:
    """A process group of this process alone, for tensors of the device and of the CPU; returns the device."""
    warnings.filterwarnings("ignore", module=r"torchrec|torch\.autograd")  # of what is deprecated, and of B200s
    if device == "cuda":
        torch.cuda.set_device(0)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tempfile.mktemp(prefix='store-')}", rank=0, world_size=1)
    return torch.device(device, 0) if device == "cuda" else torch.device("cpu")


def preset(name: str, *overrides: str) -> Config:
    """A preset, to be fed from memory: nothing is generated or read."""
    return load_config(CONFIGS / f"{name}.yaml", list(overrides))


def random_batches(
    config: Config, count: int, bags: dict[str, int] | None = None, *, exact: bool = False, pin: bool = False
) -> list[Batch]:
    """Batches of uniformly random rows: every look-up misses caches, and labels hold nothing to learn.

    Args:
        bags: IDs of a row, by feature; 1 if left out, but 20 of features with weights.
        exact: every bag has so many, else any number from 0 to that.
        pin: in page-locked memory, as the trainer's are on a GPU.
    """
    random = torch.Generator().manual_seed(0)
    made = [_random_batch(config, bags or {}, exact, random) for _ in range(count)]
    return [batch.pin_memory() for batch in made] if pin else made


def _random_batch(config: Config, bags: dict[str, int], exact: bool, random: torch.Generator) -> Batch:
    rows, names = config.data.global_batch_size, list(config.sparse_features)
    values, lengths = [], []
    for name, feature in config.sparse_features.items():
        longest = bags.get(name, 20 if feature.weights else 1)
        drawn = torch.randint(0, longest + 1, (rows,), generator=random, dtype=torch.int32)
        lengths.append(torch.full_like(drawn, longest) if exact or longest == 1 else drawn)
        size = config.tables[feature.table].num_embeddings
        values.append(torch.randint(0, size, (int(lengths[-1].sum()),), generator=random))
    ids = torch.cat(values)
    weighted = any(feature.weights for feature in config.sparse_features.values())
    labels = torch.randint(0, 2, (rows, len(config.tasks)), generator=random).float()
    return Batch(
        KeyedJaggedTensor(names, ids, torch.rand(len(ids), generator=random) if weighted else None, torch.cat(lengths)),
        torch.randn(rows, config.input_layout.dense_width, generator=random),
        labels,
        torch.ones_like(labels),
        (0, 0),
        row_keys=torch.randint(-(2**62), 2**62, (rows,), generator=random),
    )


class Stepping:
    """A built model, and the trainer's pipeline over it."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.built: Built = build(config, device, 1, None)
        self.built.model.train()
        self._pipeline = train_pipeline(self.built, device)

    def train(self, batches: Sequence[Batch], steps: int) -> list[Outputs]:
        """Trains `steps` steps on `batches` in turn."""
        source = islice(as_read(batches), steps)
        self._pipeline.reset()
        return [self._pipeline.progress(source) for _ in range(steps)]

    def seconds_a_step(self, batches: Sequence[Batch], steps: int, warm_up: int) -> float:
        """Of `steps` after `warm_up` others, the pipeline's start and end among them."""
        self._pass(batches, warm_up)
        return timed(lambda: self._pass(batches, steps), self.device.type) / steps

    def _pass(self, batches: Sequence[Batch], steps: int) -> None:
        """Trains, and keeps nothing of a step beyond the next."""
        source = islice(as_read(batches), steps)
        self._pipeline.reset()
        for _ in range(steps):
            self._pipeline.progress(source)


def timed(call: Callable[[], object], device: str) -> float:
    """Seconds of a call, the work that it gave the GPU included."""
    wait(device)
    started = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - started


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
