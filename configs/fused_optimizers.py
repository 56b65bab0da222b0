"""Which optimizers FBGEMM fuses into the backward pass of the tables, where they decay weights, and what they keep.

Kernels accept a weight decay that they then ignore, so what is not here is refused: on a CPU, row-wise Adagrad decays
the rows of some tables (16-bit ones, and those that several features read) and not of others.
"""

from collections.abc import Collection
from typing import NamedTuple

from configs.training_config import SparseOptimizer


class Kernels(NamedTuple):
    """The devices on which an optimizer is there, and on which it decays weights; bytes of its state, always 32-bit."""

    devices: tuple[str, ...]
    data_types: tuple[str, ...] = ("fp32", "fp16")
    """Of tables."""
    decays: tuple[str, ...] = ()
    bytes_per_element: int = 0
    bytes_per_row: int = 0


KERNELS = {
    "rowwise_adagrad": Kernels(devices=("cpu", "cuda"), decays=("cuda",), bytes_per_row=4),
    "adagrad": Kernels(devices=("cpu", "cuda"), bytes_per_element=4),
    "sgd": Kernels(devices=("cpu", "cuda")),
    "adam": Kernels(devices=("cuda",), data_types=("fp32",), decays=("cuda",), bytes_per_element=8),
}


class Missing(NamedTuple):
    """The key of `training.sparse_optimizer` that asks for too much, why, and what to do."""

    key: str
    why: str
    remedy: str


def missing(sparse: SparseOptimizer, device: str, data_types: Collection[str]) -> list[Missing]:
    """What the kernels of tables of these data types lack on `device`: cpu, cuda, or auto for either."""
    kernels, found = KERNELS[sparse.kind], []
    where, tail = ("cpu", "cuda") if device == "auto" else (device,), " on CPU" if device == "cpu" else ""
    if not set(where) & set(kernels.devices):
        names = ", ".join(kind for kind, other in KERNELS.items() if set(where) & set(other.devices))
        found.append(Missing("kind", f"the tables have no fused {sparse.kind}{tail}", f"use one of {names}"))
    elif other_types := sorted(set(data_types) - set(kernels.data_types)):
        why = f"fused {sparse.kind} has no tables of data_type {', '.join(other_types)}"
        found.append(Missing("kind", why, f"set their data_type to {' or '.join(kernels.data_types)}"))
    elif sparse.weight_decay and not set(where) & set(kernels.decays):
        found.append(Missing("weight_decay", f"fused {sparse.kind} has no weight decay{tail}", "set it to 0"))
    return found
