"""A JSON schema of config files, with which editors complete keys and underline mistakes.

Choices by name (tops, losses, transforms) are those whose modules exist, and the settings of each are those of its own
class `Settings`. What a schema cannot say is in `configs.checks`.
"""

from typing import Any, NamedTuple

from configs.choice_settings import settings_type
from configs.choices import available, described
from configs.schema import Config

_REWEIGHTING = "trainer.data.columns.reweighting"


class _Kind(NamedTuple):
    """A kind of choice: where a config names one, and where it sets what the choice brings along."""

    section: str  # of the schema
    key: str
    package: str
    options: str = "options"


_KINDS = (
    _Kind("ModelConfig", "top", "models.tops"),
    _Kind("TaskConfig", "loss", "models.losses"),
    _Kind("TrainingConfig", "task_balance", "models.balance", "task_balance_options"),
    _Kind("SparseFeature", "transform", "embeddings.features.transforms"),
    _Kind("GenerateConfig", "kind", "trainer.data.generators"),
)


def json_schema() -> dict[str, Any]:
    """The schema, as draft 2020-12. No key but a feature's `table` is required: an included file may hold the rest."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    for kind in _KINDS:
        _add_kind(definitions, kind)
    _add_rules(definitions)
    for name, section in (("Config", schema), *definitions.items()):
        if name != "SparseFeature":
            section.pop("required", None)
    files = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    include = {"description": "Files, relative to this one, whose keys apply where this file has none.", **files}
    schema["properties"] = {"include": include, **schema["properties"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A run of multigate", **schema}


def _add_kind(definitions: dict[str, Any], kind: _Kind) -> None:
    """The names of a kind, and of each its settings; a file that leaves the name out may set those of any."""
    section, names = definitions[kind.section], available(kind.package)
    section["properties"][kind.key]["enum"] = names
    of_name = {name: _settings(definitions, kind.package, name) for name in names}
    rules = [
        {
            "if": {"properties": {kind.key: {"const": name}}, "required": [kind.key]},
            "then": {"properties": {kind.options: settings}},
        }
        for name, settings in of_name.items()
    ]
    unnamed = {
        "if": {"not": {"required": [kind.key]}},
        "then": {"properties": {kind.options: {"anyOf": [*of_name.values()]}}},
    }
    section["allOf"] = [*section.get("allOf", []), *rules, unnamed]


def _add_rules(definitions: dict[str, Any]) -> None:
    """Rules that reweight rows: each under its own name."""
    reweight = definitions["TaskConfig"]["properties"]["reweight"]
    reweight["propertyNames"] = {"enum": available(_REWEIGHTING)}
    reweight["properties"] = {name: _settings(definitions, _REWEIGHTING, name) for name in available(_REWEIGHTING)}


def _settings(definitions: dict[str, Any], package: str, choice: str) -> dict[str, str]:
    """Adds the settings of a choice to the definitions; returns a reference to them."""
    name = f"{package}.{choice}"
    schema = settings_type(package, choice).model_json_schema(ref_template=f"#/$defs/{name}/$defs/{{model}}")
    definitions[name] = {**schema, "title": name, "description": described(package)[choice]}
    return {"$ref": f"#/$defs/{name}"}
