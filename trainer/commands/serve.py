"""`serve`: answers HTTP requests with a bundle. How, says `trainer.serving.server`."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    bundle: Path,
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
) -> None:
    """Answer HTTP requests with a BUNDLE: POST /predict, GET /health, GET /signature."""
    from trainer.serving.server import serve as serve_bundle

    serve_bundle(str(bundle), host, port)
