"""A config file, what it includes and the command line's overrides -> one tree of values with their origins.

OmegaConf resolves `${section.key}`. Nothing here knows which keys exist: `configs.load` validates.
"""

import re
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from configs.choices import did_you_mean
from configs.errors import UserError
from configs.inputs import check_regular
from configs.yaml_source import Mistake, Origin, Path, Source, parse

COMMAND_LINE = "command line"


def read(path: FilePath, overrides: Sequence[str]) -> Source:
    """Everything that was written for one run; `.mistakes` are those of the text alone.

    Raises:
        UserError: the file cannot be read, or holds no keys and values.
    """
    source = _read_file(path, ())
    return _with_overrides(source, overrides)


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """`key=value` of a command that takes settings without a config.

    Raises:
        UserError: what is wrong with the texts alone.
    """
    source = read_overrides(texts)
    if source.mistakes:
        lines = [
            f"{COMMAND_LINE}: {' '.join(('.'.join(found.path), found.message)).strip()}" for found in source.mistakes
        ]
        raise UserError("\n".join([*lines, "Write settings as key=value."]))
    return source.values


def read_overrides(texts: Sequence[str]) -> Source:
    """`section.key=value` without a file; `.mistakes` are those of the texts alone."""
    return _with_overrides(Source(values={}), texts)


def _with_overrides(source: Source, overrides: Sequence[str]) -> Source:
    for text in overrides:
        _merge(source, _read_override(text))
    source.values = _resolve(OmegaConf.create(source.values), (), source)
    return source


def escape(value: Any) -> Any:
    """Values such that `read` gives them back: `${` is a plain text in them, not an interpolation."""
    if isinstance(value, dict):
        return {key: escape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escape(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return value


def _read_file(path: FilePath, chain: tuple[FilePath, ...]) -> Source:
    """One file on top of what it includes; `chain` are the files that include it."""
    source = parse(_read_text(path), str(path))
    if not isinstance(source.values, dict):
        what = "is empty" if source.values is None else "does not hold keys and values"
        problem = source.mistakes[0].message if source.mistakes else what
        where = source.mistakes[0].origin if source.mistakes else path
        raise UserError(
            f"{where}: {problem}\nA config is YAML with the sections data, features, tables, tasks, training."
        )
    included = source.values.pop("include", None) or []
    origin = source.origins.get(("include",))
    source.values = {key: value for key, value in source.values.items() if value is not None}  # a bare `tables:`
    below = Source(values={})
    for name in included if isinstance(included, list) else [included]:
        target = path.parent / str(name)
        try:
            if target.resolve() in (*chain, path.resolve()):
                raise UserError(f"{target} includes itself")
            _merge(below, _read_file(target, (*chain, path.resolve())))
        except UserError as error:
            below.mistakes.append(Mistake(("include",), str(error).splitlines()[0], origin))
    _merge(below, source)
    return below


def _read_text(path: FilePath) -> str:
    try:
        check_regular(path)
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = sorted(str(other) for other in path.parent.glob("*.yaml"))
        advice = f"; {did_you_mean(str(path), near)}" if near else ""
        raise UserError(f"{path}: there is no such file{advice}\nGive the path of a YAML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}\nGive the path of a YAML file in UTF-8.") from None


def _read_override(text: str) -> Source:
    """`tables.user.num_embeddings=1000` as nested values."""
    name, equals, value = text.partition("=")
    path = tuple(name.strip().split("."))
    if not equals or "" in path:
        return Source({}, {}, [Mistake((), f"{text!r} is no override: write section.key=value", Origin(COMMAND_LINE))])
    source = parse(value, COMMAND_LINE, path, one_line=True)
    source.origins.setdefault(path, Origin(COMMAND_LINE, text=value))
    for key in reversed(path):
        source.values = {key: source.values}
    return source


def _merge(below: Source, top: Source) -> None:
    """Put `top` over `below`: mappings key by key, everything else as a whole."""
    below.values = _over(below.values, _without_broken_interpolations(top.values, (), top))
    below.origins |= top.origins
    below.mistakes += top.mistakes


def _over(below: Any, top: Any) -> Any:
    """`top` over `below`. OmegaConf's own merge raises on a mapping over a list, and drops `???` without a word."""
    if not isinstance(below, dict) or not isinstance(top, dict):
        return top
    return below | {key: _over(below[key], value) if key in below else value for key, value in top.items()}


def _without_broken_interpolations(value: Any, path: Path, source: Source) -> Any:
    """OmegaConf refuses a whole tree for one text such as `${`: name it and leave it out."""
    if isinstance(value, dict):
        return {key: _without_broken_interpolations(item, (*path, key), source) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_broken_interpolations(item, (*path, str(i)), source) for i, item in enumerate(value)]
    if isinstance(value, str) and "${" in value:
        try:
            OmegaConf.create([value])
        except OmegaConfBaseException:
            message = f"{value!r} is no interpolation: write ${{section.key}}, or \\${{ for plain text"
            source.mistakes.append(Mistake(path, message))
            return None
    return value


def _resolve(node: Any, path: Path, source: Source) -> Any:
    """Plain values with interpolations replaced; one that leads nowhere is a mistake, and None."""
    if not isinstance(node, DictConfig | ListConfig):
        return node
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    values = [_resolve(_item(node, key, (*path, str(key)), source), (*path, str(key)), source) for key in keys]
    return dict(zip(keys, values, strict=True)) if isinstance(node, DictConfig) else values


def _item(node: DictConfig | ListConfig, key: Any, path: Path, source: Source) -> Any:
    try:
        return node[key]
    except MissingMandatoryValue:
        message = f"stands for a value that you must give: {'.'.join(path)}=..."
    except OmegaConfBaseException as error:
        message = f"cannot be resolved: {str(error).splitlines()[0]}"
    except RecursionError:
        message = "cannot be resolved: it refers to itself"
    source.mistakes.append(Mistake(path, message))
    return None
