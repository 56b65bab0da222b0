"""The HTTP port of one process: uvicorn's server, that takes all connections that wait at once.

uvloop takes one connection in each turn of its loop. A turn scores a batch here, so 200 clients that come together
would wait for 200 batches until the last of them is heard.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

import uvicorn

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REST_S = 1.0  # without room for another connection
log = logging.getLogger(__name__)


class HttpServer(uvicorn.Server):
    """Answers on one socket, which is bound already."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to take connections."""
        await super().startup(sockets=[])
        self.servers = [Listener(self._listener, self._protocol, self.config)]  # pyright: ignore[reportAttributeAccessIssue]

    def _protocol(self) -> asyncio.Protocol:
        loop = asyncio.get_running_loop()
        make = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop)  # pyright: ignore[reportCallIssue]


class Listener:
    """Takes connections from a socket. close, wait_closed: as uvicorn calls them."""

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], config: uvicorn.Config):
        self._listener, self._protocol, self._tls = listener, protocol, config.ssl
        self._loop, self._opening = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        self._again: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(config.backlog)
        self._loop.add_reader(listener.fileno(), self._accept)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _FULL:
                    self._rest(error)
                    return
                continue  # this client is gone already
            client.setblocking(False)
            task = self._loop.create_task(self._open(client))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, client, ssl=self._tls)
        except OSError as error:  # the handshake of TLS failed, or the client is gone
            log.debug("a connection was not opened: %s", error)

    def _rest(self, error: OSError) -> None:
        log.error("no room for another connection: %s", error)
        self._loop.remove_reader(self._listener.fileno())
        self._again = self._loop.call_later(_REST_S, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Takes those that wait already, and no more."""
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._accept()
        if self._again is not None:
            self._again.cancel()
        self._listener.close()

    async def wait_closed(self) -> None:
        """Until those that were taken are open."""
        await asyncio.gather(*self._opening, return_exceptions=True)
