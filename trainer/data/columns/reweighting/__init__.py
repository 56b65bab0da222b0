"""Sample loss reweighting by rule: which rows count how much in a task's loss. One module a rule.

`tasks.<name>.reweight` names rules and gives each its settings. A module has `Settings`, a `Rule`: its fields are the
keys of the config, so that wrong ones are refused; called on a table it gives a factor a row. Factors of several rules
multiply, with those of weight columns too. They apply to training alone: evaluation counts rows as they came.

R rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from configs.choices import did_you_mean, load
from configs.errors import UserError
from configs.schema import Section, TaskConfig
from embeddings.features.limits import Limits
from trainer.data.columns.numbers import Vector
from trainer.data.dataset.manifest import Manifest


class Rule(Section):
    """A rule with its settings."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What it reads."""
        raise NotImplementedError

    @property
    def limits(self) -> dict[str, Limits]:
        """What its columns must be, for a look at footers before a row is read."""
        return {}

    def __call__(self, table: pa.Table, labels: Vector, where: str) -> Vector:
        """The factor of every row [R], at least 0. labels: the task's [R], 0 where missing.

        Raises:
            UserError: a value that the rule cannot use, with its place: `where`, row and column.
        """
        raise NotImplementedError

    def settled(self, manifest: Manifest) -> dict[str, Any]:
        """Settings that the rule takes from the training part as a whole, to be kept in the run's config."""
        return {}


def rules(name: str, task: TaskConfig) -> list[Rule]:
    """The rules of a task.

    Raises:
        UserError: there is no such rule, or it has no such setting.
    """
    return [_rule(f"tasks.{name}.reweight.{rule}", rule, settings) for rule, settings in task.reweight.items()]


def settle(
    tasks: Mapping[str, TaskConfig], manifest: Manifest, former: Mapping[str, TaskConfig]
) -> dict[str, TaskConfig]:
    """The tasks with every setting that rules take from the training part filled in.

    former: the tasks of the run that goes on, if one does. What was settled for it stays, though its data has grown.
    """
    settled = dict(tasks)
    for name, task in tasks.items():
        before = former[name].reweight if name in former else {}
        reweight: dict[str, dict[str, Any]] = {}
        for (rule, settings), made in zip(task.reweight.items(), rules(name, task), strict=True):
            found = made.settled(manifest)
            kept = {key: before[rule][key] for key in found if key in before.get(rule, {})}
            reweight[rule] = {**settings, **found, **kept}
        settled[name] = task.model_copy(update={"reweight": reweight})
    return settled


def without(tasks: Mapping[str, TaskConfig]) -> dict[str, TaskConfig]:
    """The tasks without their rules, for evaluation."""
    return {name: task.model_copy(update={"reweight": {}}) for name, task in tasks.items()}


def _rule(path: str, rule: str, settings: Mapping[str, Any]) -> Rule:
    kind: type[Rule] = load("trainer.data.columns.reweighting", rule).Settings
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        known = list(kind.model_fields)
        lines = [_mistake(path, item, known) for item in error.errors(include_url=False)]
        raise UserError(
            "\n".join([*lines, f"{rule} has: {', '.join(known)}; trainer/data/columns/reweighting says more."])
        ) from None


def _mistake(path: str, item: Any, known: list[str]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"{path}.{key} is missing"
    if item["type"] == "extra_forbidden":
        return f"{path}.{key}: unknown key; {did_you_mean(key, known)}"
    return f"{path}.{key} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}"
