"""The settings that a choice brings along: what they are, and what is wrong with those that a config gives it.

A choice's module has a class `Settings`; its fields are the keys that the config may set. For the check of a config
it is read without importing the module (`configs.choices.read`); who builds the choice takes it from the module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from configs.choices import did_you_mean, read, settings
from configs.errors import UserError
from configs.mistakes import from_pydantic
from configs.schema import Config
from configs.section import Section
from configs.yaml_source import Mistake, Path


class ChoiceSettings(Section):
    """Settings of a choice. Without a class of its own a choice has none."""

    def mistakes(self, config: Config, name: str) -> Iterator[tuple[str, str]]:
        """(setting, what is wrong with it) that only shows beside the rest of the run's `config`.

        name: of the task or feature that made the choice, or "".
        """
        return iter(())


def settings_type(package: str, choice: str) -> type[ChoiceSettings]:
    """The settings of a choice, without importing its module.

    Raises:
        UserError: they are not what a choice's settings must be.
    """
    return _checked(read(package, choice, "Settings", ChoiceSettings), f"{package}.{choice}")


def settings_of(module: ModuleType, values: Mapping[str, Any], path: str) -> Any:
    """An instance of the module's own `Settings`, for its `build`; `path` is the key of the config that has `values`.

    Raises:
        UserError: what is wrong with the values, one mistake a line.
    """
    kind = _checked(getattr(module, "Settings", ChoiceSettings), module.__name__)
    package, _, choice = module.__name__.rpartition(".")
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        found = _described(error, kind, package, choice, tuple(path.split(".")), {})
        lines = [f"{'.'.join(mistake.path)} {mistake.message}" for mistake in found]
        raise UserError("\n".join([*lines, f"{package.replace('.', '/')}/{choice}.py says more."])) from None


def setting_mistakes(
    package: str, choice: str, values: Mapping[str, Any], path: Path, section: Mapping[str, str]
) -> tuple[ChoiceSettings | None, list[Mistake]]:
    """The settings, if `values` are right, and what is wrong with these; section: see `_described`."""
    kind = settings_type(package, choice)
    try:
        return kind.model_validate(dict(values)), []
    except ValidationError as error:
        return None, _described(error, kind, package, choice, path, section)


def _checked(kind: Any, where: str) -> type[ChoiceSettings]:
    if not (isinstance(kind, type) and issubclass(kind, ChoiceSettings)):
        raise UserError(
            f"{where}.Settings is not a ChoiceSettings\nWrite class Settings(ChoiceSettings) in the module."
        )
    return kind


def _described(
    error: ValidationError,
    kind: type[ChoiceSettings],
    package: str,
    choice: str,
    path: Path,
    section: Mapping[str, str],
) -> list[Mistake]:
    """pydantic's complaints. section: key -> its path, of keys beside the choice that may have been meant."""
    found = []
    for item, mistake in zip(error.errors(include_url=False), from_pydantic(error, path, kind), strict=True):
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            mistake = Mistake(mistake.path, _unknown(str(item["loc"][0]), kind, package, choice, section))
        found.append(mistake)
    return found


def _unknown(key: str, kind: type[ChoiceSettings], package: str, choice: str, section: Mapping[str, str]) -> str:
    owners = [other for other, fields in settings(package).items() if key in fields]
    if owners:
        return f"has no effect: it belongs to {' and '.join(owners)}, and this is {choice}"
    own = {name: name for name in kind.model_fields}
    advice = did_you_mean(key, [*own, *section])
    if advice.startswith("did you mean"):
        meant = advice.removeprefix("did you mean ").removesuffix("?")
        return f"unknown key; did you mean {({**section, **own})[meant]}?"
    near = [(name, other) for other, fields in settings(package).items() for name in fields if _alike(key, name)]
    if near:
        name, other = near[0]
        return f"unknown key; {choice} has none like it, did you mean {name} of {other}?"
    return f"unknown key; {choice} has {', '.join(own)}" if own else f"unknown key; {choice} has no settings"


def _alike(key: str, name: str) -> bool:
    return did_you_mean(key, [name]).startswith("did you mean")
