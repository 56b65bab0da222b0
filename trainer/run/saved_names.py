"""The names of what a checkpoint holds. Whoever writes, reads or sorts such names asks here; imports nothing.

    model/tables.embedding_bags.TABLE.weight   a table
    model/top.NAME                             a weight of the top
    model/objective.NAME                       of the task balance
    optim/PARAMETER/STATE                      optimizer state of a parameter, which is named as in the model
    extra/NAME                                 a JSON value beside the tensors

`TABLES`, `TOP` and `OBJECTIVE` are attributes of `trainer.ranker.Ranker`.
"""

TABLES, TOP, OBJECTIVE = "tables", "top", "objective"


def model(name: str) -> str:
    """A parameter or buffer of the Ranker, by its name there."""
    return f"model/{name}"


def table(name: str) -> str:
    return model(f"{TABLES}.embedding_bags.{name}.weight")


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
    """model, optim or extra: a section is loaded whole or not at all."""
    return saved.split("/", 1)[0]


def is_in_tables(parameter: str) -> bool:
    """Whether a parameter of the Ranker, by its name there, is a table."""
    return parameter.startswith(f"{TABLES}.")
