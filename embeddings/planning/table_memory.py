"""Bytes that tables and their optimizer state take, and the message when there are not enough."""

from collections.abc import Sequence

from configs.errors import UserError
from configs.fused_optimizers import KERNELS
from configs.schema import Config
from embeddings.planning.topology import GIB, Capacity

_DENSE_STATES = {"adam": 2, "adamw": 2, "adagrad": 1, "sgd": 0}  # each of the weights' own type


def table_bytes(config: Config, name: str, rows: int, columns: int) -> int:
    """Weights and optimizer state of a rectangle of a table; of a data-parallel one, with its gradient."""
    table = config.tables[name]
    weight = 2 if table.data_type == "fp16" else 4
    if table.sharding == "data_parallel":
        return rows * columns * weight * (2 + _DENSE_STATES[config.training.dense_optimizer.kind])
    kernels = KERNELS[config.training.sparse_optimizer.kind]
    return rows * columns * (weight + kernels.bytes_per_element) + rows * kernels.bytes_per_row


def does_not_fit(config: Config, names: Sequence[str], capacity: Capacity, world_size: int) -> UserError:
    """Says which table is too big for one worker, or that all together are for all workers."""
    there = capacity.fast / GIB
    tables = {name: config.tables[name] for name in names}
    needed = {name: table_bytes(config, name, t.num_embeddings, t.embedding_dim) / GIB for name, t in tables.items()}
    largest = max(needed, key=needed.__getitem__)
    whole = [name for name in names if tables[name].sharding in ("table_wise", "data_parallel")]
    for name in sorted(whole, key=needed.__getitem__, reverse=True)[:1]:
        if needed[name] > there:
            return UserError(
                f"tables.{name} needs {needed[name]:.2f} GiB with its optimizer state, all on one worker, which has "
                f"{there:.2f} GiB (sharding: {tables[name].sharding})\n"
                f"Set tables.{name}.sharding=auto to cut it by rows, shrink it, or raise launch.memory_gib."
            )
    return UserError(
        f"the tables need {sum(needed.values()):.2f} GiB with optimizer state, and buffers beside; launch.workers="
        f"{world_size} have {there * world_size:.2f} GiB, {there:.2f} each. The largest is tables.{largest}, "
        f"{needed[largest]:.2f} GiB\n"
        "Use more workers (launch.workers), raise launch.memory_gib, or shrink tables: num_embeddings, embedding_dim, "
        "data_type=fp16."
    )
