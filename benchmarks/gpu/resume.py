"""Kills a training run and resumes it: it must end with the bits of an undisturbed run.

For that `training.deterministic` sets what a GPU needs: CUBLAS_WORKSPACE_CONFIG, torch's deterministic algorithms (the
tables' backward pass then adds up a row's gradients in one order), and no stochastic rounding. Both sparse optimizers
that keep a count or a sum of steps are tried, on tables of 32 and of 16 bits.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from benchmarks.gpu.worker import open_group, preset
from cluster.worker import Worker
from configs.schema import Config
from trainer.checkpoint.files import find
from trainer.checkpoint.storage import read_index
from trainer.prepare import prepare_run
from trainer.run.folder import Folder
from trainer.train import train

_SPAWN = multiprocessing.get_context("spawn")  # an open GPU does not survive a fork


def run(device: str, tiny: bool) -> dict[str, float]:
    """For each optimizer, 1 where the runs ended alike, and the step after which the first was killed."""
    kinds = ("rowwise_adagrad",) if tiny else ("rowwise_adagrad", "adam") if device == "cuda" else ("adagrad", "sgd")
    figures = {}
    with tempfile.TemporaryDirectory(prefix="multigate_") as folder, ThreadPoolExecutor() as pool:
        compare = partial(_compare, Path(folder), device, 80 if tiny else 600)
        for kind, (killed_after, differing) in zip(kinds, pool.map(compare, kinds), strict=True):
            print(f"{kind}: killed after step {killed_after} or later, {len(differing)} tensors differ", flush=True)
            assert not differing, differing
            figures |= {f"{kind}_identical": 1.0, f"{kind}_killed_after": float(killed_after)}
    return figures


def _compare(folder: Path, device: str, steps: int, kind: str) -> tuple[int, list[str]]:
    """(the last step that was saved before the kill, names in the last checkpoint that differ)."""
    calm = _config(folder, f"calm_{kind}", kind, device, steps)
    killed = _config(folder, f"killed_{kind}", kind, device, steps)
    undisturbed = _start(calm, device)
    process = _start(killed, device)
    saved = _wait_for_checkpoint(killed, process)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"it ended by itself with {process.exitcode} before it could be killed"
    _finish(_start(killed, device, resume=True), killed)
    _finish(undisturbed, calm)
    expected, found = _last_state(calm), _last_state(killed)
    assert expected.keys() == found.keys()
    return saved, sorted(name for name in expected if not torch.equal(expected[name], found[name]))


def _config(folder: Path, name: str, kind: str, device: str, steps: int) -> Config:
    rows = ("data.generate.train_rows=60000", "data.generate.validation_rows=2000", "data.generate.rows_per_file=10000")
    return preset(
        "quickstart",
        *rows,
        f"data.root={folder / f'{name}_data'}",
        "data.global_batch_size=512",
        f"tables.author.data_type={'fp32' if kind == 'adam' else 'fp16'}",
        "model.dropout=0.1",
        f"training.sparse_optimizer.kind={kind}",
        "training.sparse_optimizer.learning_rate=0.01",
        "training.deterministic=true",
        f"training.compile={'true' if kind == 'rowwise_adagrad' and device == 'cuda' else 'false'}",
        "training.epochs=100",
        f"training.max_steps={steps}",
        f"training.gradient_cosines_every={steps // 4}",
        f"training.run_dir={folder / name}",
        f"checkpoint.every_steps={steps // 8}",
    )


def _start(config: Config, device: str, *, resume: bool = False) -> SpawnProcess:
    process = _SPAWN.Process(target=_train, args=(config, device, resume))
    process.start()
    return process


def _train(config: Config, device: str, resume: bool) -> None:
    prepared = prepare_run(config, resume=resume, overwrite=False, say=lambda line: None)
    open_group(device)
    train(prepared, Worker(0, 1, 0, 1, "localhost", device, lambda line: None))
    sys.stdout.flush()
    os._exit(0)  # some threads of fbgemm and NCCL abort a normal exit


def _finish(process: SpawnProcess, config: Config) -> None:
    process.join()
    assert process.exitcode == 0, _why_it_ended(process, config)


def _why_it_ended(process: SpawnProcess, config: Config) -> str:
    logs = [file.read_text()[-3000:] for file in Path(config.training.run_dir).glob("logs/latest/rank_0.log")]
    return "\n".join([f"{config.training.run_dir} ended with {process.exitcode}", *logs])


def _wait_for_checkpoint(config: Config, process: SpawnProcess) -> int:
    """The step of the first checkpoint, as soon as it is whole."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for complete in Path(config.training.run_dir).glob("checkpoints/step_*/complete.json"):
            return int(complete.parent.name.removeprefix("step_"))
        assert process.is_alive(), f"before its first checkpoint, {_why_it_ended(process, config)}"
        time.sleep(0.005)
    raise AssertionError("no checkpoint within a minute")


def _last_state(config: Config) -> dict[str, torch.Tensor]:
    """All tensors of a run's last checkpoint, as bytes."""
    newest = find(Folder(f"{config.training.run_dir}/checkpoints"))[0][0]
    assert newest.step == config.training.max_steps, newest.step
    index = read_index(newest)
    state = {}
    for place, stored in index.storage_data.items():
        tensor = index.state_dict_metadata[place.fqn]
        chunk = next(one for one in tensor.chunks if one.offsets == place.offset)
        size = chunk.sizes.numel() * tensor.properties.dtype.itemsize
        with newest.folder.reader(stored.file) as file:
            file.seek(stored.start)
            content = torch.frombuffer(bytearray(file.read(size)), dtype=torch.uint8)
        state[f"{place.fqn} at {list(place.offset or ())}"] = content
    return state
