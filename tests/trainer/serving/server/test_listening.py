"""How a process takes connections: all that wait, in one turn of its loop."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
import uvloop

from trainer.serving.server import listening
from trainer.serving.server.listening import HttpServer

CLIENTS = 50


async def nothing(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def answering(listener: socket.socket) -> AsyncIterator[HttpServer]:
    server = HttpServer(uvicorn.Config(nothing, lifespan="off", log_level="error"), listener)
    serving = asyncio.create_task(server._serve([]))
    while not server.started:
        await asyncio.sleep(0)
    yield server
    server.should_exit = True
    await serving


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    made = [socket.socket() for _ in range(CLIENTS)]
    yield made
    for client in made:
        client.close()


def test_clients_that_come_together_are_taken_together(clients: list[socket.socket]) -> None:
    async def story() -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        async with answering(listener) as server:
            for client in clients:
                client.connect(address)  # the loop does not turn meanwhile
            turns = 0
            while len(server.server_state.connections) < CLIENTS:
                await asyncio.sleep(0)
                turns += 1
            for client in clients:
                client.close()
            return turns

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(story()) < 10


class Full(socket.socket):
    """Has no room for a connection at first."""

    refused = 0

    def accept(self):
        if self.refused < 2:
            self.refused += 1
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


def test_without_room_it_waits_and_then_takes_them(
    clients: list[socket.socket], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "_REST_S", 0.05)

    async def story() -> bytes:
        listener = Full()
        listener.bind(("127.0.0.1", 0))
        async with answering(listener):
            client = clients[0]
            client.connect(listener.getsockname())
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return await asyncio.get_running_loop().run_in_executor(None, client.recv, 1000)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(story()).startswith(b"HTTP/1.1 204")
    assert caplog.text.count("no room for another connection") == 2
