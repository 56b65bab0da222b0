"""The names of what a checkpoint holds. Whoever writes, reads or sorts such names asks here; imports nothing.

    model/tables.embedding_bags.TABLE.weight   a table
    model/top.NAME                             a weight of the top
    model/objective.NAME                       of the task balance
    optim/PARAMETER/STATE                      optimizer state of a parameter, which is named as in the model
    window/RANK/NAME                           what a rank keeps of the steps since the last log line
    extra/NAME                                 a JSON value beside the tensors

`TABLES`, `TOP` and `OBJECTIVE` are attributes of `trainer.ranker.Ranker`.
"""

TABLES, TOP, OBJECTIVE = "tables", "top", "objective"
WINDOW = "window"


def model(name: str) -> str:
    """A parameter or buffer of the Ranker, by its name there."""
    return f"model/{name}"


def table(name: str) -> str:
    return model(f"{TABLES}.embedding_bags.{name}.weight")


def table_of(saved: str) -> str | None:
    """The table that a weight, or a tensor of its optimizer state, belongs to; None for what is of no table."""
    inside = saved.partition("/")[2]
    start = f"{TABLES}.embedding_bags."
    return inside.removeprefix(start).partition(".weight")[0] if inside.startswith(start) else None


def window(rank: int, name: str) -> str:
    """What a rank keeps of the steps since the last log line."""
    return f"{WINDOW}/{rank}/{name}"


def top(name: str) -> str:
    """A weight of the top, by its name there."""
    return model(f"{TOP}.{name}")


def name_in_top(saved: str) -> str | None:
    """The other way: a weight's name in the top; None for what is not of the top."""
    prefix = top("")
    return saved.removeprefix(prefix) if saved.startswith(prefix) else None


def is_weight(saved: str) -> bool:
    """Whether it is of the model, not of its optimizers."""
    return section(saved) == section(model(""))


def optimizer(parameter: str, state: str) -> str:
    return f"optim/{parameter}/{state}"


def extra(name: str) -> str:
    return f"extra/{name}"


def section(saved: str) -> str:
    """model, optim, window or extra: a section is loaded whole or not at all."""
    return saved.split("/", 1)[0]


def is_in_tables(parameter: str) -> bool:
    """Whether a parameter of the Ranker, by its name there, is a table."""
    return parameter.startswith(f"{TABLES}.")
