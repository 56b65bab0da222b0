"""A server in this process, on real ports: the loop runs in a thread. Processes of their own are for test_processes."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvloop

from configs.serve_config import ServeConfig
from trainer.serving.bundle import Bundle
from trainer.serving.server.batcher import score
from trainer.serving.server.board import Board
from trainer.serving.server.host import Host
from trainer.serving.server.models import Version
from trainer.serving.server.predict import read_rows
from trainer.serving.server.scoring import Durations
from trainer.serving.server.skew import Skew
from trainer.serving.server.state import first_state
from trainer.serving.server.worker import answer


@dataclass
class Running:
    """host: what the routes work with. http, grpc: HOST:PORT."""

    host: Host
    http: str
    grpc: str = ""
    scheme: str = "http"
    stop: Callable[[], object] = lambda: None
    _ready: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Of HTTP."""
        return f"{self.scheme}://{self.http}"


@contextmanager
def running(
    *bundles: tuple[str | None, str], settings: ServeConfig | None = None, token: str | None = None, **given
) -> Iterator[Running]:
    """Serves (name, folder) until the block ends, or `stop` is called."""
    settings = settings or ServeConfig(**given)
    state = first_state(bundles)
    board = Board.create(1, len(state))
    board.write(state)
    host = Host(settings, board, 0, token)
    host.begin(verify=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Running(host, f"127.0.0.1:{listener.getsockname()[1]}")
        loop, stop = uvloop.new_event_loop(), asyncio.Event()
        server.scheme = "https" if settings.tls_certificate else "http"
        server.stop = lambda: loop.call_soon_threadsafe(stop.set)

        def ready(port: int) -> None:
            server.grpc = f"127.0.0.1:{port}"
            server._ready.set()

        async def run() -> None:
            following = asyncio.create_task(host.follow(verify=False))
            await answer(host, listener, "127.0.0.1:0", stop, ready)
            following.cancel()

        thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
        thread.start()
        assert server._ready.wait(30)
        try:
            yield server
        finally:
            if thread.is_alive():
                server.stop()
            thread.join(30)
            assert not thread.is_alive()


def version_of(bundle: Bundle) -> Version:
    """A bundle as a process serves it."""
    counters = Board.create(1, 1).counters(0, 0)
    return Version("model", "7", bundle, counters, None, Skew(list(bundle.features), counters))


def scored(version: Version, rows: list) -> list:
    """What requests of JSON rows get that are scored together: predictions, or the exception."""
    calls = [read_rows(version, json.dumps({"rows": one}).encode()) for one in rows]
    return score(version, calls, Durations())
