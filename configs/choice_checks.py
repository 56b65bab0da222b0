"""Checks of what a config chooses by name: is there such a choice, and are its settings right?

`chosen` says where a config chooses. No choice's module is imported.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from configs.choice_settings import setting_mistakes
from configs.choices import available, did_you_mean, settings
from configs.schema import Config
from configs.section import Section
from configs.yaml_source import Mistake, Path


class Chosen(NamedTuple):
    """A choice that a config makes."""

    path: Path  # of the name
    package: str
    name: str
    options: Mapping[str, Any]
    options_path: Path
    section: Section | None  # that has the name: its keys may have been meant by one of `options`
    owner: str = ""  # the task or feature that chose


def chosen(config: Config) -> Iterator[Chosen]:
    """Every choice of `config`."""
    model, training, generate = config.model, config.training, config.data.generate
    yield Chosen(("model", "top"), "models.tops", model.top, model.options, ("model", "options"), model)
    balance, path = training.task_balance_options, ("training", "task_balance_options")
    yield Chosen(("training", "task_balance"), "models.balance", training.task_balance, balance, path, None)
    for name, task in config.tasks.items():
        path = ("tasks", name)
        yield Chosen((*path, "loss"), "models.losses", task.loss, task.options, (*path, "options"), task, name)
        for rule, values in task.reweight.items():
            key = (*path, "reweight", rule)
            yield Chosen(key, "trainer.data.columns.reweighting", rule, values, key, None, name)
    for name, feature in config.sparse_features.items():
        package, path = "embeddings.features.transforms", ("features", name)
        kind, options = feature.transform, feature.options
        yield Chosen((*path, "transform"), package, kind, options, (*path, "options"), feature, name)
    if generate:
        package, path = "trainer.data.generators", ("data", "generate")
        kind, options = generate.kind, generate.options
        yield Chosen((*path, "kind"), package, kind, options, (*path, "options"), generate)


def choices_exist(config: Config) -> Iterator[Mistake]:
    """Names of modules: a top, a loss, a transform."""
    for choice in chosen(config):
        if choice.name not in (names := available(choice.package)):
            where = choice.package.replace(".", "/")
            yield Mistake(choice.path, f"is not in {where}; {did_you_mean(choice.name, names)}")


def settings_are_right(config: Config, tops: tuple[str, ...] = ()) -> Iterator[Mistake]:
    """The settings of every choice. tops: those that a comparison puts in place of `model.top`, each with its own."""
    for choice in chosen(config):
        if choice.name not in available(choice.package):
            continue
        if choice.path == ("model", "top"):
            for top in tops or (choice.name,):
                yield from _mistakes(choice._replace(name=top, options=options_of(top, config, tops)), config)
        else:
            yield from _mistakes(choice, config)


def options_of(top: str, config: Config, tops: Sequence[str]) -> dict[str, Any]:
    """Those of `model.options` that `top` is to take: not what only another of `tops` has."""
    of_tops = settings("models.tops")
    others = {key for other in tops for key in of_tops.get(other, {})}
    return {
        key: value for key, value in config.model.options.items() if key in of_tops.get(top, {}) or key not in others
    }


def _mistakes(choice: Chosen, config: Config) -> Iterator[Mistake]:
    parent = ".".join(choice.path[:-1])
    section = {key: f"{parent}.{key}" for key in type(choice.section).model_fields} if choice.section else {}
    values, found = setting_mistakes(choice.package, choice.name, choice.options, choice.options_path, section)
    for mistake in found:
        yield _with_places(mistake, choice)
    for setting, message in values.mistakes(config, choice.owner) if values else ():
        yield _with_places(Mistake((*choice.options_path, *setting.split(".")), message), choice)


def _with_places(mistake: Mistake, choice: Chosen) -> Mistake:
    """The mistake, to be shown where the setting was written: in the options, or beside the name of the choice."""
    beside = (*choice.path[:-1], *mistake.path[len(choice.options_path) :])
    return Mistake(mistake.path, mistake.message, also=(beside, choice.path))
