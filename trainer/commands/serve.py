"""`serve`: answers HTTP requests with a bundle. How, says `trainer.serving.server`."""

from pathlib import Path
from typing import Annotated

import typer

from configs.load import load_config
from configs.serve_config import ServeConfig
from trainer.commands.options import SkipChecksums
from trainer.commands.screen import say


def serve(
    bundle: Path,
    config: Annotated[Path | None, typer.Option(help="YAML file of a run, whose section `serve` is used.")] = None,
    host: Annotated[str | None, typer.Option(help="Interface to listen on; 127.0.0.1 if nothing says else.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 8080, as above.")] = None,
    skip_checksums: SkipChecksums = False,
) -> None:
    """Answer HTTP requests with a BUNDLE: POST /predict, GET /health, GET /signature."""
    settings = load_config(config).serve if config else ServeConfig()
    given = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    from trainer.serving.server import serve as serve_bundle

    serve_bundle(str(bundle), settings.model_copy(update=given), say, verify=not skip_checksums)
