"""Checks of a config's tasks against each other, and against what they choose. `configs.checks` runs them."""

from collections.abc import Callable, Iterator
from itertools import combinations

from configs.choices import available, did_you_mean, read
from configs.schema import Config, TaskConfig
from configs.yaml_source import Mistake


def tasks_can_learn(config: Config) -> Iterator[Mistake]:
    if all(task.weight == 0 for task in config.tasks.values()):
        yield Mistake(("tasks",), "the weight of every task is 0: nothing would be learned")
    for name, task in config.tasks.items():
        if task.output == "identity" and _constant(task, "INPUT") == "logit":
            message = f"loss {task.loss} is of a probability: identity would predict logits; use auto"
            yield Mistake(("tasks", name, "output"), message, also=(("tasks", name, "loss"),))


def side_towers_are_fed(config: Config) -> Iterator[Mistake]:
    for name, task in config.tasks.items():
        path = ("tasks", name, "tower_features")
        for feature in task.tower_features:
            if feature not in config.features:
                yield Mistake(path, f"{feature} is no feature; {did_you_mean(feature, list(config.features))}")
        if len(set(task.tower_features)) < len(task.tower_features):
            yield Mistake(path, "names a feature twice")


def funnels_have_a_first_event(config: Config) -> Iterator[Mistake]:
    """A parent is another task, and no task comes before itself."""
    for name, task in config.tasks.items():
        path = ("tasks", name, "parent")
        if task.parent is not None and task.parent not in config.tasks:
            others = [other for other in config.tasks if other != name]
            yield Mistake(path, f"is no task; {did_you_mean(task.parent, others) if others else 'there is no other'}")
        circle = _circle(config, name)
        if circle and name == min(circle, key=list(config.tasks).index):  # reported once
            message = (
                f"leads back to {name} ({' -> '.join([*circle, name])}); the first event of a funnel has no parent"
            )
            yield Mistake(path, message, also=tuple(("tasks", other, "parent") for other in circle))


def _circle(config: Config, name: str) -> list[str]:
    """The tasks from `name` back to it, each followed by its parent; empty if its parents do not lead there."""
    found = [name]
    while (parent := config.tasks[found[-1]].parent) is not None:
        if parent == name:
            return found
        if parent in found or parent not in config.tasks:
            return []
        found.append(parent)
    return []


def funnels_are_of_events(config: Config) -> Iterator[Mistake]:
    """Both tasks of a relation predict probabilities; towers that pass something on fit each other."""
    for name, task in config.tasks.items():
        parent = config.tasks.get(task.parent or "")
        if parent is None:
            continue
        path, parent_path = ("tasks", name, "parent"), ("tasks", str(task.parent))
        for one, owner in ((task, ("tasks", name)), (parent, parent_path)):
            if _predicts(one) == "identity":
                message = f"a funnel is of events, but {owner[1]} with loss {one.loss} predicts no probability"
                yield Mistake(path, f"{message}; use output: sigmoid", also=((*owner, "loss"), (*owner, "output")))
        mine, its = (config.model.tower_layers if t.tower_layers is None else t.tower_layers for t in (task, parent))
        if task.relation == "aitm" and (not mine or not its or mine[-1] != its[-1]):
            widths = f"{mine[-1] if mine else 0} numbers and that of {task.parent} {its[-1] if its else 0}"
            message = f"aitm passes on a tower's last hidden layer, but that of {name} has {widths}; make them equal"
            places = (("tasks", name, "tower_layers"), (*parent_path, "tower_layers"), ("model", "tower_layers"))
            yield Mistake(("tasks", name, "relation"), message, also=places)


def labels_mean_one_thing(config: Config) -> Iterator[Mistake]:
    """One column is not an event for one task and an amount for another."""
    for (first, a), (second, b) in combinations(config.tasks.items(), 2):
        if (a.label or first) == (b.label or second) and _predicts(a) and _predicts(b) and _predicts(a) != _predicts(b):
            amount = second if _predicts(b) == "identity" else first
            message = (
                f"{a.label or first} is the label of tasks.{first} (loss {a.loss}) too: {amount} takes it for an "
                "amount and the other for an event; use another column, or losses of one kind"
            )
            yield Mistake(
                ("tasks", second, "label"), message, also=(("tasks", second, "loss"), ("tasks", first, "loss"))
            )


def balances_have_something_to_balance(config: Config) -> Iterator[Mistake]:
    """Tasks that share nothing have no gradients that meet."""
    top, balance = config.model.top, config.training.task_balance
    if balance not in available("models.balance") or top not in available("models.tops"):
        return
    if read("models.balance", balance, "COMBINES", False) and not read("models.tops", top, "SHARES", True):
        message = f"combines the gradients that tasks share, and {top} shares nothing; use fixed, uncertainty or dwa"
        yield Mistake(("training", "task_balance"), message, also=(("model", "top"),))


def _predicts(task: TaskConfig) -> str | None:
    """ "sigmoid" or "identity"; None where the loss is not known."""
    return _constant(task, "OUTPUT") if task.output == "auto" else task.output


def _constant(task: TaskConfig, name: str) -> str | None:
    return read("models.losses", task.loss, name) if task.loss in available("models.losses") else None


TASK_CHECKS: tuple[Callable[[Config], Iterator[Mistake]], ...] = (
    tasks_can_learn,
    side_towers_are_fed,
    funnels_have_a_first_event,
    funnels_are_of_events,
    labels_mean_one_thing,
    balances_have_something_to_balance,
)
