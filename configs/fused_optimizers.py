"""Which optimizers FBGEMM fuses into the backward pass of the tables, and where they decay weights.

Kernels accept a weight decay that they then ignore, so what is not here is refused: on a CPU, row-wise Adagrad decays
the rows of some tables (16-bit ones, and those that several features read) and not of others.
"""

from typing import NamedTuple

from configs.training_config import SparseOptimizer


class Kernels(NamedTuple):
    """The devices on which an optimizer is there, and on which it decays weights."""

    devices: tuple[str, ...]
    decays: tuple[str, ...] = ()


KERNELS = {
    "rowwise_adagrad": Kernels(devices=("cpu", "cuda"), decays=("cuda",)),
    "adagrad": Kernels(devices=("cpu", "cuda")),
    "sgd": Kernels(devices=("cpu", "cuda")),
    "adam": Kernels(devices=("cuda",), decays=("cuda",)),
}


class Missing(NamedTuple):
    """The key of `training.sparse_optimizer` that asks for too much, why, and what to do."""

    key: str
    why: str
    remedy: str


def missing(sparse: SparseOptimizer, device: str) -> list[Missing]:
    """What the tables' kernels lack on `device`: cpu, cuda, or auto for either."""
    kernels, found = KERNELS[sparse.kind], []
    where, tail = ("cpu", "cuda") if device == "auto" else (device,), " on CPU" if device == "cpu" else ""
    if not set(where) & set(kernels.devices):
        names = ", ".join(kind for kind, other in KERNELS.items() if set(where) & set(other.devices))
        found.append(Missing("kind", f"the tables have no fused {sparse.kind}{tail}", f"use one of {names}"))
    elif sparse.weight_decay and not set(where) & set(kernels.decays):
        found.append(Missing("weight_decay", f"fused {sparse.kind} has no weight decay{tail}", "set it to 0"))
    return found
