"""A config file and overrides -> a validated `Config`, or one `UserError` that names every mistake with file and line.

Reading and merging are in `configs.merge`, the checks across sections in `configs.checks`.
"""

import copy
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from configs.checks import check
from configs.choices import did_you_mean
from configs.errors import UserError
from configs.merge import COMMAND_LINE, escape, read, read_overrides
from configs.mistakes import from_pydantic, key_path, models_at
from configs.schema import Config
from configs.yaml_source import Mistake, Origin, Path, Source, scalar

S = TypeVar("S", bound=BaseModel)


def load_config(path: str | FilePath, overrides: Sequence[str] = (), tops: Sequence[str] = ()) -> Config:
    """The run that the file `path` describes, with `section.key=value` overrides on top.

    tops: those that a comparison will put in place of `model.top`, so that settings of each of them may be there.

    Raises:
        UserError: every mistake of the file, its includes and the overrides, one a line.
    """
    source = read(FilePath(path), overrides)
    config, mistakes = _validate(source, tuple(tops))
    if mistakes or config is None:
        raise UserError(_report(str(path), source, mistakes))
    return config


def load_section(name: str, kind: type[S], overrides: Sequence[str], path: str | FilePath | None = None) -> S:
    """The section `name` of a command that needs no run: what the file `path` says there, if one is given, with
    `name.key=value` overrides on top.

    The other sections of the file may be missing or unfinished: they are not read.

    Raises:
        UserError: every mistake of the section, and every key beside it that is no section, one a line.
    """
    source = read(FilePath(path), overrides) if path else read_overrides(overrides)
    mistakes = [found for found in source.mistakes if found.path[:1] in ((), ("include",), (name,))]
    sections = Config.model_fields
    strangers = [key for key in source.values if key not in sections]
    mistakes += [Mistake((key,), f"unknown key; {did_you_mean(key, list(sections))}") for key in strangers]
    try:
        section = kind.model_validate(_numbers_as_text(source, kind, (name,)).get(name, {}))
    except ValidationError as error:
        found = from_pydantic(error, (name,), kind)
        raise UserError(_report(str(path or COMMAND_LINE), source, [*mistakes, *found])) from None
    if mistakes:
        raise UserError(_report(str(path or COMMAND_LINE), source, mistakes))
    return section


def describes_run(path: str | FilePath, overrides: Sequence[str] = ()) -> bool:
    """Whether a section is there that only a run has, rather than those of commands alone.

    Raises:
        UserError: it cannot be read, or holds no keys and values.
    """
    required = {name for name, field in Config.model_fields.items() if field.is_required()}
    return not required.isdisjoint(read(FilePath(path), overrides).values)


def dump_config(config: Config) -> str:
    """YAML with every key written out; `load_config` gives an equal config (unless a text is `???`)."""
    values = escape(config.model_dump())
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes what any YAML reader, 1.1 or 1.2, would not take as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = scalar(text) == text and text.isprintable()
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _represent_text)


def _validate(source: Source, tops: tuple[str, ...]) -> tuple[Config | None, list[Mistake]]:
    """The config and no mistake; or all mistakes: of the text, of the schema, and across sections."""
    mistakes = list(source.mistakes)
    values = _numbers_as_text(source, Config)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        mistakes += [found for found in from_pydantic(error) if not _follows(found, mistakes)]
        config = _mend(values)
    if config is not None:
        mistakes += [found for found in check(config, tops) if not _follows(found, mistakes)]
    return config, mistakes


def _follows(mistake: Mistake, known: list[Mistake]) -> bool:
    """Whether `mistake` only follows from a known one: a path of it is the place of that, or above or below it."""
    pairs = [(path, other.path) for path in (mistake.path, *mistake.also) for other in known if other.path]
    return any(path[: len(other)] == other[: len(path)] for path, other in pairs)


def _numbers_as_text(source: Source, kind: type[BaseModel], prefix: Path = ()) -> dict[str, Any]:
    """The values; where the schema wants text, a number counts as the text that was written (`train: 20220504`).

    prefix: where the values of `kind` stand.
    """
    values = copy.deepcopy(source.values)
    at = values
    for key in prefix:
        at = at.get(key, {})
    try:
        kind.model_validate(at)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            path = prefix + key_path(item["loc"])
            origin = source.origins.get(path)
            is_written = origin is not None and scalar(origin.text or "") == item["input"] is not None
            if item["type"] in ("string_type", "value_error") and origin and is_written:
                _put(values, path, origin.text)
    return values


def _put(values: Any, path: Path, value: Any) -> None:
    *parents, last = path
    for key in parents:
        values = values[int(key) if isinstance(values, list) else key]
    values[int(last) if isinstance(values, list) else last] = value


def _mend(values: dict[str, Any]) -> Config | None:
    """A valid config near an invalid one, so that the checks across sections can run; None when none is near."""
    values = copy.deepcopy(values)
    for _ in range(4):
        try:
            return Config.model_validate(values)
        except ValidationError as error:
            for mistake in from_pydantic(error):
                _mend_one(values, mistake)
    return None


def _mend_one(values: dict[str, Any], mistake: Mistake) -> None:
    """Leave out a wrong value, put in a missing one."""
    *parents, key = mistake.path
    for parent in parents:
        if not isinstance(values.get(parent), dict):  # the mistake is inside a list: leave that out
            values.pop(parent, None)
            return
        values = values[parent]
    if mistake.message != "is missing":
        values.pop(key, None)
    elif key in ("num_embeddings", "embedding_dim"):
        values[key] = 4
    else:
        values[key] = {} if models_at(mistake.path) or len(mistake.path) == 1 else "?"


def _report(path: str, source: Source, mistakes: list[Mistake]) -> str:
    located = [(mistake, _origin(mistake, source) or Origin(path, 1)) for mistake in mistakes]
    located.sort(key=lambda pair: (pair[1].line is None, pair[1].file, pair[1].line or 0))
    lines = dict.fromkeys(f"{origin}: {_where(mistake, source)}{mistake.message}" for mistake, origin in located)
    if len(lines) == 1:
        return f"{next(iter(lines))}\nCorrect it; nothing was started."
    return "\n  ".join([f"{path}: {len(lines)} mistakes; nothing was started. Correct these:", *lines])


def _where(mistake: Mistake, source: Source) -> str:
    """`tables.user.embedding_dim = 7: `"""
    if not mistake.path:
        return ""
    places = [path for path in mistake.also if path[-1] == mistake.path[-1] and path in source.origins]
    path = places[0] if places and mistake.path not in source.origins else mistake.path
    value: Any = source.values
    for key in path:
        value = value.get(key) if isinstance(value, dict) else value
    text = str(value).lower() if isinstance(value, bool) else value
    shown = f" = {text}" if isinstance(value, str | int | float) else ""
    return f"{'.'.join(path)}{shown}: "


def _origin(mistake: Mistake, source: Source) -> Origin | None:
    """Where the value was written, or another that the mistake depends on, or else what is nearest around them."""
    if mistake.origin:
        return mistake.origin
    paths = (mistake.path, *mistake.also)
    written = [source.origins[path] for path in paths if path in source.origins]
    return written[0] if written else _nearest(mistake.path, source)


def _nearest(path: Path, source: Source) -> Origin | None:
    for depth in range(len(path), -1, -1):
        inside = [origin for other, origin in source.origins.items() if other[:depth] == path[:depth]]
        if inside:
            return inside[0]
    return None
