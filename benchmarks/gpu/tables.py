"""Reads and updates of table rows, as a share of the rate at which this machine copies memory.

The kernels are those inside a trained model of this project. Bytes that must move: a read fetches every row that is
looked up, its ID and writes the pooled rows; an update reads the gradient and the IDs once, and reads and writes each
distinct row and its optimizer state once.
"""

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.worker import Stepping, open_group, timed
from configs.schema import Config
from embeddings.kernels import kernels_of

TABLES, DIM = 16, 128


def run(device: str, tiny: bool) -> dict[str, float]:
    """TB/s of a copy, and of reads and updates the TB/s and the share of the copy's, by type of the tables."""
    here = open_group(device)
    rows, batch, bag = (10_000, 64, 5) if tiny else (1_000_000, 16_384, 20)
    rate = copy_rate(here, 2**20 if tiny else 2**30)
    print(f"copy: {rate / 1e12:.3f} TB/s, read and written")
    figures = {"copy_tb_per_s": rate / 1e12}
    for data_type, size in (("fp32", 4), ("fp16", 2)):
        (kernel,) = kernels_of(Stepping(_config(rows, batch, data_type), here).built.model)
        ids = torch.randint(0, rows, (TABLES * batch * bag,), device=here)
        distinct = sum(len(part.unique()) for part in ids.view(TABLES, -1))
        offsets = torch.arange(0, len(ids) + 1, bag, device=here)
        gradient = torch.randn(batch, TABLES * DIM, device=here)
        look_up = partial(kernel, ids, offsets)
        with torch.no_grad():
            read = _median(look_up, device)
        both = _median(partial(_look_up_and_update, look_up, gradient), device)
        pooled = gradient.nbytes
        moved = {
            "read": (len(ids) * (DIM * size + 8) + pooled, read),
            "update": (pooled + 8 * len(ids) + distinct * (2 * DIM * size + 8), both - read),
        }
        for name, (count, seconds) in moved.items():
            achieved = count / max(seconds, 1e-9)
            rates = f"{1e3 * seconds:>9.3f} ms{achieved / 1e12:>8.3f} TB/s{achieved / rate:>8.1%}"
            print(f"{data_type} {name:<7}{rates}", flush=True)
            figures |= {f"{data_type}_{name}_tb_per_s": achieved / 1e12, f"{data_type}_{name}_share": achieved / rate}
    return figures


def _look_up_and_update(look_up: Callable[[], Tensor], gradient: Tensor) -> None:
    look_up().backward(gradient)


def _config(rows: int, batch: int, data_type: str) -> Config:
    names = [f"t{number}" for number in range(TABLES)]
    table = {"num_embeddings": rows, "embedding_dim": DIM, "data_type": data_type, "sharding": "table_wise"}
    return Config.model_validate(
        {
            "data": {"root": "unused", "global_batch_size": batch},
            "features": {name: {"table": name} for name in names},
            "tables": dict.fromkeys(names, table),
            "tasks": {"label": {}},
            "training": {"run_dir": "unused"},
        }
    )


def copy_rate(device: torch.device, elements: int) -> float:
    """Bytes read and written a second, of a large copy in the device's memory."""
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median(lambda: target.copy_(source), device.type)


def _median(call: Callable[[], object], device: str, repeats: int = 15) -> float:
    """Seconds of a call."""
    call()
    return statistics.median(timed(call, device) for _ in range(repeats))
