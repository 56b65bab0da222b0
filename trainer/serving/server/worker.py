"""One process of a server: one event loop for HTTP, gRPC and scoring, on one core.

Started by `serve`, which gives it JSON on standard input, then keeps that open: when it closes, the parent is gone.
The process says "ready" on standard output when it answers.
"""

import asyncio
import gc
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from configs.errors import UserError
from configs.serve_config import ServeConfig
from trainer.serving.server.app import App
from trainer.serving.server.connections import connection_class
from trainer.serving.server.host import Host
from trainer.serving.server.listening import HttpServer


@dataclass(frozen=True)
class Order:
    """What a process is to do. http: the socket's file number; grpc: the address; board: its file number."""

    settings: dict[str, Any]
    process: int
    processes: int
    models: int
    board: int
    http: int
    grpc: str | None
    verify: bool
    token: str | None


def main() -> None:
    """Reads the order and serves until SIGTERM, or until the parent is gone."""
    order = Order(**json.loads(sys.stdin.readline()))
    logging.basicConfig(level=logging.WARNING, format=f"process {order.process}: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the parent says when to stop
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(order))
    except UserError as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201
        sys.exit(2)


async def _serve(order: Order) -> None:
    import torch

    from trainer.serving.server.board import Board

    torch.set_num_threads(1)
    board = Board(order.board, order.processes, order.models)
    host = Host(ServeConfig.model_validate(order.settings), board, order.process, order.token)
    host.begin(order.verify)
    gc.collect()
    gc.freeze()  # torch's objects stay: a collection that walks through them would stop all requests for their time
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), _parent_said, stop)
    following = asyncio.create_task(host.follow(order.verify))
    await answer(host, socket.socket(fileno=order.http), order.grpc, stop, _say_ready)
    following.cancel()
    board.apply(order.process, -1)


async def answer(
    host: Host, listener: socket.socket, grpc_address: str | None, stop: asyncio.Event, ready: Callable[[int], None]
) -> None:
    """Answers HTTP on `listener`, and gRPC, until `stop`; then open requests are finished.

    Args:
        ready: called when both answer, with gRPC's port.
    """
    settings = host.settings
    http = HttpServer(_http_options(App(host), settings), listener)
    grpc, port = await _start_grpc(host, grpc_address) if grpc_address else (None, 0)
    serving = asyncio.create_task(http._serve([]))  # `serve` would take signals from the loop
    while not http.started and not serving.done():
        await asyncio.sleep(0.005)
    if serving.done():
        serving.result()
        raise UserError("HTTP could not be started; the lines above say why")
    host.is_ready = True
    ready(port)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
    host.is_ready = False
    await asyncio.sleep(settings.drain_s)  # whoever sends requests here sees that it is not ready, and goes elsewhere
    http.should_exit = True
    if grpc is not None:
        await grpc.stop(settings.stop_timeout_s)
    stopping.cancel()
    await serving
    if host.log is not None:
        await asyncio.to_thread(host.log.close)


def _http_options(app: App, settings: ServeConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=connection_class(settings.body_timeout_s),
        lifespan="off",
        interface="asgi3",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=settings.backlog,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.stop_timeout_s,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )


def _say_ready(port: int) -> None:
    print(json.dumps({"ready": True}), flush=True)  # noqa: T201


def _parent_said(stop: asyncio.Event) -> None:
    if not sys.stdin.buffer.raw.read(1):  # pyright: ignore[reportAttributeAccessIssue]
        stop.set()


async def _start_grpc(host: Host, address: str) -> tuple[Any, int]:
    from trainer.serving.server.service import grpc_server

    credentials = None
    certificate, key = host.settings.tls_certificate, host.settings.tls_key
    if certificate and key:
        import grpc

        pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
        credentials = grpc.ssl_server_credentials([pair])
    server, port = grpc_server(host, address, credentials)
    if not port:
        raise UserError(f"cannot listen on {address} for gRPC\nGive another --grpc-port.")
    await server.start()
    return server, port


if __name__ == "__main__":
    main()
