"""Arguments that several commands have, and the config that they name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from configs.load import load_config
from configs.schema import Config

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; configs/ has presets.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Such as data.global_batch_size=8192.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]
SkipChecksums = Annotated[
    bool,
    typer.Option(
        "--skip-checksums",
        help="Compare the sizes of the bundle's files alone: starts without reading all of them, but a flipped bit is "
        "not noticed and changes predictions.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object on the last line of standard output.")]


def read_config(path: Path, overrides: list[str] | None, tops: Sequence[str] = ()) -> Config:
    """The config of a command line. tops: see `load_config`. Raises UserError with every mistake of it."""
    return load_config(path, overrides or [], tops)
