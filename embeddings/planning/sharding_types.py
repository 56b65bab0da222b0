"""Which sharding types a table may have: by the config, by the run's former plan, and by its number of rows."""

import math
from collections.abc import Sequence

from configs.errors import UserError
from configs.schema import Config
from embeddings.planning.plan import Pins

_WHOLE_BELOW = 10_000  # rows; smaller tables are not worth cutting, and some workers would get none
# Weights and optimizer state of these can become any other of them. All types can change the number of workers.
_INTERCHANGEABLE = frozenset({"row_wise", "table_wise", "table_row_wise"})


def allowed_types(
    config: Config, name: str, world_size: int, local_world_size: int, pins: Pins | None, *, free: bool
) -> Sequence[str]:
    """Sharding types to choose among for a table; with `free`, pinned ones may become what they can.

    A table with too few rows to give every worker some is held whole: kernels on CPU fail where there is none. So is
    every table of a single worker, whose IDs need not be sorted by who holds them then.
    """
    table = config.tables[name]
    former = pins.sharding.get(name) if pins else None
    if table.sharding != "auto":
        types = [table.sharding]
    elif former is not None and not (free and former in _INTERCHANGEABLE):
        types = [former]
    else:
        types = ["row_wise", "table_wise"] if table.num_embeddings >= _WHOLE_BELOW else ["table_wise"]
    parts = {"row_wise": world_size, "table_row_wise": local_world_size}
    whole = {kind for kind, count in parts.items() if not _can_be_cut(table.num_embeddings, count, world_size)}
    return sorted({"table_wise" if kind in whole else kind for kind in types})


def _can_be_cut(rows: int, parts: int, world_size: int) -> bool:
    return world_size > 1 and math.ceil(rows / parts) * (parts - 1) < rows


def check_types(config: Config, names: Sequence[str], pins: Pins | None, *, even_hosts: bool) -> None:
    """Refuse what cannot be.

    Raises:
        UserError: a table is to be cut over a host's workers, and hosts differ in those; or a former sharding type
            whose optimizer state cannot follow into the wanted one.
    """
    for name in names:
        wanted = config.tables[name].sharding
        if wanted == "table_row_wise" and not even_hosts:
            raise UserError(
                f"tables.{name}.sharding=table_row_wise: needs equally many workers on every host\n"
                f"Set tables.{name}.sharding=row_wise, or change launch.workers."
            )
        former = pins.sharding.get(name, wanted) if pins else wanted
        if wanted not in ("auto", former) and not {wanted, former} <= _INTERCHANGEABLE:
            raise UserError(
                f"tables.{name}.sharding={wanted}: this run has the table as {former}, whose optimizer state cannot "
                f"become {wanted}\nKeep tables.{name}.sharding={former}, or start a new run."
            )
