"""HTTP connections as uvicorn has them, with an end for those that never say what they want.

uvicorn waits for the head of a request as long as it takes, and keeps whatever it is. Here a head has as much time as
a body, and 64 KiB.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEAD = 1 << 16


def connection_class(timeout_s: float) -> type[HttpToolsProtocol]:
    """A class of connections whose heads must be there within `timeout_s`."""

    class Connection(HttpToolsProtocol):
        """One connection."""

        _head_bytes = 0
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            """A client is there; now it has to say something."""
            super().connection_made(transport)
            self._await_head()

        def _await_head(self) -> None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(timeout_s, self._give_up, b"408 Request Timeout")

        def data_received(self, data: bytes) -> None:
            """Bytes of a head, or of a body."""
            super().data_received(data)
            if self._head_timer is not None:
                self._head_bytes += len(data)
                if self._head_bytes > _MAX_HEAD:
                    self._give_up(b"431 Request Header Fields Too Large")

        def on_message_begin(self) -> None:
            """A head begins."""
            super().on_message_begin()
            if self._head_timer is None:
                self._await_head()

        def on_headers_complete(self) -> None:
            """A head is whole."""
            self._forget_timer()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            """The client is gone."""
            self._forget_timer()
            super().connection_lost(exc)

        def _forget_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _give_up(self, status: bytes) -> None:
            self._forget_timer()
            if not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                self.transport.close()

    return Connection
