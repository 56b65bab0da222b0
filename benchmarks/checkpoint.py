"""How long a checkpoint takes and holds training up, beside torch's own format and a plain write of the same bytes.

    python -m benchmarks.checkpoint [--mib 1024] [--rounds 3] [--folder DIR] [--json]

One process saves tables of FP32. "stall" is the time `save` keeps the training step waiting when it goes on in the
background; "save" and "load" are the whole, to the disk and with checksums verified (torch's format has none).
Everything is measured again in every round, so that a busy machine slows all alike; medians are shown. `--json` ends
with one object: `*_gib_per_s` and the ratios `save_vs_torch`, `load_vs_torch`, `stall_vs_torch` (below 1 is faster)
and `save_vs_plain_write`.
"""

import argparse
import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from configs.schema import CheckpointConfig
from trainer.checkpoint.checkpointer import Checkpointer

TABLES = 8
WIDTH = 64


def tables(mib: int) -> dict[str, Tensor]:
    rows = mib * 2**20 // (TABLES * WIDTH * 4)
    return {f"model/table_{number}": torch.rand(rows, WIDTH) for number in range(TABLES)}


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def plain_write(state: dict[str, Tensor], path: Path) -> None:
    with open(path, "wb") as file:
        for tensor in state.values():
            file.write(tensor.numpy().data)
        file.flush()
        os.fsync(file.fileno())


def measure(state: dict[str, Tensor], folder: Path, ours: Checkpointer, step: int) -> dict[str, float]:
    """One round. Files and targets are new each time, as they are in a run."""
    found = {"plain_write": seconds(lambda: plain_write(state, folder / "plain"))}
    found["save"] = ours.save(state, step=2 * step, epoch=0, epoch_step=0, blocking=True)
    found["stall"] = ours.save(state, step=2 * step + 1, epoch=0, epoch_step=0)
    ours.wait()
    found["load"] = seconds(lambda: ours.load({name: torch.empty_like(value) for name, value in state.items()}))
    found["torch_save"] = seconds(lambda: save(state, storage_writer=FileSystemWriter(folder / "torch")))
    background = dist.new_group(backend="gloo")
    assert isinstance(background, dist.ProcessGroup)
    started = time.perf_counter()
    in_flight = async_save(state, storage_writer=FileSystemWriter(folder / "torch_async"), process_group=background)
    found["torch_stall"] = time.perf_counter() - started
    in_flight.result()  # type: ignore[union-attr]
    target = {name: torch.empty_like(value) for name, value in state.items()}
    found["torch_load"] = seconds(lambda: load(target, storage_reader=FileSystemReader(folder / "torch")))
    return found


def report(rounds: list[dict[str, float]], mib: int) -> dict[str, float]:
    # The first round of a background save claims the memory for its copies; a run does that once.
    medians = {name: statistics.median(found[name] for found in rounds[1:] or rounds) for name in rounds[0]}
    values = {f"{name}_gib_per_s": mib / 1024 / taken for name, taken in medians.items()}
    for name in ("save", "load", "stall"):
        values[f"{name}_vs_torch"] = medians[name] / medians[f"torch_{name}"]
    values["save_vs_plain_write"] = medians["save"] / medians["plain_write"]
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="On the disk to measure; default: the temporary folder.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    state, rounds = tables(arguments.mib), []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        ours = Checkpointer(f"{folder}/ours", CheckpointConfig(keep=2), {})
        for number in range(arguments.rounds):
            rounds.append(measure(state, Path(folder), ours, number))
            for path in Path(folder).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    dist.destroy_process_group()
    values = report(rounds, arguments.mib)
    for name, value in values.items():
        print(f"{name:28} {value:8.2f}", file=sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in values.items()}))


if __name__ == "__main__":
    main()
