"""The HTTP routes as one ASGI application, for whoever has processes of their own, such as Ray Serve.

One process, no gRPC and no ports: those are of whoever calls it. Its metrics are those of this process, and bundles are
replaced by replacing it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import torch

from configs.serve_config import ServeConfig
from trainer.serving.server.app import App
from trainer.serving.server.board import Board
from trainer.serving.server.host import Host
from trainer.serving.server.serve import named, token_of
from trainer.serving.server.state import first_state

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


def application(bundles: Sequence[str], settings: Mapping[str, Any] | None = None, *, verify: bool = True) -> Asgi:
    """Answers as `serve` does.

    Args:
        bundles: folders, or NAME=FOLDER.
        settings: keys of the section `serve`; those about ports and processes mean nothing here.
        verify: compare the checksums of the bundles' files.
    """
    torch.set_num_threads(1)
    given = ServeConfig.model_validate(settings or {})
    state = first_state([(name or given.name, folder) for name, folder in map(named, bundles)])
    board = Board.create(1, len(state))
    board.write(state)
    host = Host(given, board, 0, token_of(given))
    host.begin(verify)
    host.is_ready = True
    app = App(host)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await (_live(host, receive, send) if scope["type"] == "lifespan" else app(scope, receive, send))

    return asgi


async def _live(host: Host, receive: Any, send: Any) -> None:
    """From the start of the process that calls this to its end."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            host.is_ready = False
            if host.log is not None:
                host.log.close()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
