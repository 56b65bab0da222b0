"""pydantic's complaints about a config in the words of someone who writes one, with "did you mean".

Knows the schema's shape, not the files that the values come from: `configs.load` adds file and line.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

from configs.choices import available, did_you_mean, settings
from configs.schema import Config, DenseFeature
from configs.yaml_source import Mistake, Path

_MAPPING_EXPECTED = ("dict_type", "model_type", "model_attributes_type")


def from_pydantic(error: ValidationError, prefix: Path = (), root: type[BaseModel] = Config) -> list[Mistake]:
    """One mistake for each thing that pydantic found in values of `root`, which stand at `prefix` in the config."""
    return [_mistake(item, prefix, root) for item in error.errors(include_url=False)]


def key_path(loc: tuple[int | str, ...]) -> Path:
    """pydantic's location without the sparse / dense tag that it puts into a feature's."""
    is_feature = len(loc) > 2 and loc[0] == "features" and loc[2] in ("sparse", "dense")
    return tuple(str(part) for i, part in enumerate(loc) if not (is_feature and i == 2))


def models_at(path: Path, root: type[BaseModel] = Config) -> list[type[BaseModel]]:
    """The sections of `root` that the keys of `path` belong to: two for a feature, none below `options`."""
    kinds: list[Any] = [root]
    for name in path:
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        values = [typing.get_args(kind)[1] for kind in kinds if typing.get_origin(kind) is dict]
        fields = [model.model_fields[name].annotation for model in models if name in model.model_fields]
        kinds = [part for kind in values + fields for part in _parts(kind)]
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _parts(annotation: Any) -> Iterator[Any]:
    """The members of a union, without `Annotated`."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        yield from _parts(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def _mistake(item: Any, prefix: Path, root: type[BaseModel]) -> Mistake:
    inner, kind = key_path(item["loc"]), item["type"]
    path = prefix + inner
    if kind == "missing":
        return Mistake(path, "is missing")
    if kind == "extra_forbidden":
        return Mistake(path, _unknown_key(inner, root))
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        return Mistake(path, f"is none of {', '.join(names)}{_suggestion(path, item['input'], names)}")
    if kind in _MAPPING_EXPECTED:
        return Mistake(path, "must hold keys and values")
    message = item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return Mistake(path, message[:1].lower() + message[1:])


def _unknown_key(path: Path, root: type[BaseModel]) -> str:
    *parent, key = path
    fields = [field for model in models_at(tuple(parent), root) for field in model.model_fields.items()]
    names = list(dict.fromkeys(field.alias or name for name, field in fields))
    if parent == ["model"]:  # the settings of a top may stand beside its name
        names += [name for fields in settings("models.tops").values() for name in fields]
    if "." in key:
        return "unknown key: in a file, dots become nested keys (a.b: 1 is a: {b: 1})"
    if key in names:  # of the other kind of feature
        return (
            "is for features without a `table`"
            if key in DenseFeature.model_fields
            else "is for features with a `table`"
        )
    return f"unknown key; {did_you_mean(key, names)}"


def _suggestion(path: Path, value: Any, names: list[str]) -> str:
    if (
        path[:1] == ("features",)
        and path[2:] == ("transform",)
        and value in available("embeddings.features.transforms")
    ):
        return f"; {value} needs a `table`"
    advice = did_you_mean(str(value), names)
    return f"; {advice}" if advice.startswith("did you mean") else ""
