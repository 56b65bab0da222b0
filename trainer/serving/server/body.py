"""The body of an HTTP request: all of it, or why not. It may be too long, come too slowly, or be compressed."""

import asyncio
import contextlib
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from configs.serve_config import ServeConfig
from trainer.serving.server.refusals import RefusedError, UnreadError

Receive = Callable[[], Awaitable[Any]]
_WINDOWS = {b"gzip": 31, b"deflate": 47}  # zlib's names of the formats: 47 finds out
_QUIET_S = 1.0  # a refused client that sends nothing for as long has stopped


class ClientGoneError(Exception):
    """The client hung up: there is nobody to answer."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, settings: ServeConfig) -> bytes:
    """The body, decompressed. RefusedError: see above; ClientGoneError."""
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding != b"identity" and encoding not in _WINDOWS:
        raise RefusedError(
            415, f"the body has Content-Encoding {encoding.decode('latin-1')}\nSend it as gzip or as it is."
        )
    limit = settings.max_body_mib << 20
    length = headers.get(b"content-length", b"0")
    if len(length) > 12 or int(length) > limit:
        raise UnreadError(*_too_long(settings))
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            body = await _read(receive, limit, settings)
    except TimeoutError:
        raise UnreadError(408, f"the body did not come within {settings.body_timeout_s:g} s") from None
    return body if encoding == b"identity" else _decompressed(body, _WINDOWS[encoding], limit, settings)


async def drop_rest(receive: Receive, settings: ServeConfig) -> None:
    """Reads what a client that was refused still sends: until it stops, for no longer than a body may take.

    To close at once would leave bytes unread, and the kernel resets such a connection: a client that sends all before
    it reads would see the reset in place of the answer (RFC 9112, 9.6).
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.body_timeout_s):
            while True:
                async with asyncio.timeout(_QUIET_S):
                    message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return


async def _read(receive: Receive, limit: int, settings: ServeConfig) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part, is_last = message.get("body", b""), not message.get("more_body", False)
        if len(body) + len(part) > limit:  # a chunked body does not say its length
            raise UnreadError(*_too_long(settings))
        if is_last and not body:
            return part
        body += part
        if is_last:
            return bytes(body)


def _too_long(settings: ServeConfig) -> tuple[int, str]:
    return 413, f"the body is longer than {settings.max_body_mib} MiB\nSend fewer rows per request."


def _decompressed(body: bytes, window: int, limit: int, settings: ServeConfig) -> bytes:
    reader = zlib.decompressobj(window)
    try:
        plain = reader.decompress(body, limit + 1)
    except zlib.error as error:
        raise RefusedError(400, f"the body cannot be decompressed: {error}") from None
    if len(plain) > limit:
        raise RefusedError(*_too_long(settings))
    if not reader.eof:
        raise RefusedError(400, "the compressed body ends too early")
    return plain
