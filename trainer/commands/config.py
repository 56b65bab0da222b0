"""`config`: checks a config and prints it whole; or prints the schema, or what there is to choose by name."""

import json
import textwrap
from pathlib import Path
from typing import Annotated

import typer

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
    return "\n\n".join(f"{name} - {text}" for name, text in described(package).items())
