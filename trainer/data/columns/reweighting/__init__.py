"""Sample loss reweighting by rule: which rows count how much in a task's loss. One module a rule.

`tasks.<name>.reweight` names rules and gives each its settings. A module has `Settings` and `build(settings)`, which
makes a `Rule`: called on a table it gives a factor a row. Factors of several rules multiply, with those of weight
columns too. They apply to training alone: evaluation counts rows as they came.

R rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import pyarrow as pa

from configs.choice_settings import settings_of
from configs.choices import load
from configs.schema import TaskConfig
from embeddings.features.limits import Limits
from trainer.data.columns.numbers import Vector
from trainer.data.dataset.manifest import Manifest


class Rule:
    """A rule with its settings."""

    columns: tuple[str, ...]
    """What it reads."""

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

    def taken_from_data(self, manifest: Manifest) -> dict[str, Any]:
        """Settings that the rule takes from the training part as a whole, to be kept in the run's config."""
        return {}


class RuleModule(Protocol):
    """What a module of this package has."""

    def build(self, settings: Any, /) -> Rule: ...


def rules(name: str, task: TaskConfig) -> list[Rule]:
    """The rules of a task.

    Raises:
        UserError: there is no such rule, or it has no such setting.
    """
    return [_rule(f"tasks.{name}.reweight.{rule}", rule, settings) for rule, settings in task.reweight.items()]


def fill_from_data(
    tasks: Mapping[str, TaskConfig], manifest: Manifest, former: Mapping[str, TaskConfig]
) -> dict[str, TaskConfig]:
    """The tasks with every setting that rules take from the training part filled in.

    former: the tasks of the run that resumes, if one does. What it took then stays, though its data has grown.
    """
    filled = dict(tasks)
    for name, task in tasks.items():
        before = former[name].reweight if name in former else {}
        reweight: dict[str, dict[str, Any]] = {}
        for (rule, settings), made in zip(task.reweight.items(), rules(name, task), strict=True):
            found = made.taken_from_data(manifest)
            kept = {key: before[rule][key] for key in found if key in before.get(rule, {})}
            reweight[rule] = {**settings, **found, **kept}
        filled[name] = task.model_copy(update={"reweight": reweight})
    return filled


def without_rules(tasks: Mapping[str, TaskConfig]) -> dict[str, TaskConfig]:
    """The tasks without their rules, for evaluation."""
    return {name: task.model_copy(update={"reweight": {}}) for name, task in tasks.items()}


def _rule(path: str, rule: str, values: Mapping[str, Any]) -> Rule:
    module = load("trainer.data.columns.reweighting", rule)
    return cast(RuleModule, module).build(settings_of(module, values, path))
