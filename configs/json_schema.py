"""A JSON schema of config files, with which editors complete keys and underline mistakes.

Choices by name (tops, losses, transforms) are those whose modules exist. What a schema cannot say is in
`configs.checks`.
"""

from typing import Any

from configs.choices import available
from configs.schema import Config

_CHOICES = (  # section of the schema, key, package
    ("ModelConfig", "top", "models.tops"),
    ("TaskConfig", "loss", "models.losses"),
    ("TrainingConfig", "task_balance", "models.balance"),
    ("SparseFeature", "transform", "embeddings.features.transforms"),
    ("GenerateConfig", "kind", "trainer.data.generators"),
)


def json_schema() -> dict[str, Any]:
    """The schema, as draft 2020-12. No key but a feature's `table` is required: an included file may hold the rest."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    for section, key, package in _CHOICES:
        definitions[section]["properties"][key]["enum"] = available(package)
    rules = {"enum": available("trainer.data.columns.reweighting")}
    definitions["TaskConfig"]["properties"]["reweight"]["propertyNames"] = rules
    for name, section in (("Config", schema), *definitions.items()):
        if name != "SparseFeature":
            section.pop("required", None)
    files = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    include = {"description": "Files, relative to this one, whose keys apply where this file has none.", **files}
    schema["properties"] = {"include": include, **schema["properties"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A run of multigate", **schema}
