"""`serve`: answers requests with bundles. How, says `trainer.serving.server`."""

from pathlib import Path
from typing import Annotated

import typer

from configs.errors import UserError
from configs.load import load_section
from configs.serve_config import ServeConfig
from trainer.commands.options import SkipChecksums
from trainer.commands.screen import say

Bundles = Annotated[
    list[str],
    typer.Argument(
        metavar="BUNDLE... [serve.KEY=VALUE]...",
        help="Folders that `export` wrote; NAME=FOLDER names one's model. serve.KEY=VALUE are settings.",
    ),
]


def serve(
    bundles: Bundles,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file, of which the section `serve` is used: a run's, or one with that section alone."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Interface to listen on; 127.0.0.1 if nothing says else.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of HTTP; 8080, as above.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of gRPC; 8081, as above.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name for clients; the run's folder, as above.")] = None,
    skip_checksums: SkipChecksums = False,
) -> None:
    """Answer requests with BUNDLEs: Open Inference Protocol over HTTP and gRPC, JSON rows, a page to try it."""
    overrides = [text for text in bundles if text.startswith("serve.") and "=" in text]
    bundles = [text for text in bundles if text not in overrides]
    settings = load_section("serve", ServeConfig, overrides, config)
    options = {"host": host, "port": http_port, "grpc_port": grpc_port, "name": name}
    if not bundles:
        raise UserError("serve needs a bundle\nGive the folder that `python -m trainer export RUN` wrote.")
    given = {key: value for key, value in options.items() if value is not None}
    from trainer.serving.server.serve import serve as serve_bundles

    serve_bundles(bundles, settings.model_copy(update=given), say, verify=not skip_checksums)
