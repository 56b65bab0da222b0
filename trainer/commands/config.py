"""`config`: checks a config and prints it whole; or prints the schema, or what there is to choose by name."""

import json
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from configs.choice_settings import settings_type
from configs.choices import PACKAGES, described
from configs.errors import UserError
from configs.load import dump_config
from trainer.commands.options import Overrides, read_config
from trainer.commands.screen import report


def show_config(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG")] = None,
    overrides: Overrides = None,
    json_schema: Annotated[bool, typer.Option("--json-schema", help="The schema, for editors.")] = False,
    choices: Annotated[
        bool, typer.Option("--choices", help="What there is to choose by name: tops, losses, ID transforms, ...")
    ] = False,
) -> None:
    """Check a config and print it with every default filled in."""
    if choices:
        report(_choices())
    elif json_schema:
        from configs.json_schema import json_schema as schema

        report(json.dumps(schema(), indent=2))
    elif config is None:
        raise UserError("config needs a file\ngive one, such as configs/quickstart.yaml, or --json-schema")
    else:
        report(dump_config(read_config(config, overrides)).rstrip("\n"))


def _choices() -> str:
    return "\n".join(f"{key}\n\n{textwrap.indent(_paragraphs(package), '  ')}\n" for key, package in PACKAGES.items())


def _paragraphs(package: str) -> str:
    texts = [f"{name} - {text}{_settings(package, name)}" for name, text in described(package).items()]
    return "\n\n".join(texts)


def _settings(package: str, choice: str) -> str:
    """A line for each setting of the choice: name, type, default, sentence."""
    schema = settings_type(package, choice).model_json_schema()
    lines = []
    for name, field in schema["properties"].items():
        default = f"= {json.dumps(field['default'])}" if "default" in field else "(required)"
        lines.append(f"\n    {name}: {_type(field)} {default} - {field['description']}")
    return "".join(lines)


def _type(field: dict[str, Any]) -> str:
    """A field of a JSON schema in words."""
    if "enum" in field:
        return " | ".join(field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(part) for part in field["anyOf"])
    if "const" in field:
        return str(field["const"])
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return str(field.get("type", "any"))
