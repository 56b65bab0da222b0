"""The body of an HTTP request: all of it, or why not. It may be too long, come too slowly, or be compressed."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from configs.serve_config import ServeConfig
from trainer.serving.server.refusals import RefusedError

Receive = Callable[[], Awaitable[Any]]
_WINDOWS = {b"gzip": 31, b"deflate": 47}  # zlib's names of the formats: 47 finds out


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
        raise _too_long(settings)
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            body = await _read(receive, limit, settings)
    except TimeoutError:
        raise RefusedError(408, f"the body did not come within {settings.body_timeout_s:g} s") from None
    return body if encoding == b"identity" else _decompressed(body, _WINDOWS[encoding], limit, settings)


async def _read(receive: Receive, limit: int, settings: ServeConfig) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part, is_last = message.get("body", b""), not message.get("more_body", False)
        if len(body) + len(part) > limit:  # a chunked body does not say its length
            raise _too_long(settings)
        if is_last and not body:
            return part
        body += part
        if is_last:
            return bytes(body)


def _too_long(settings: ServeConfig) -> RefusedError:
    return RefusedError(413, f"the body is longer than {settings.max_body_mib} MiB\nSend fewer rows per request.")


def _decompressed(body: bytes, window: int, limit: int, settings: ServeConfig) -> bytes:
    reader = zlib.decompressobj(window)
    try:
        plain = reader.decompress(body, limit + 1)
    except zlib.error as error:
        raise RefusedError(400, f"the body cannot be decompressed: {error}") from None
    if len(plain) > limit:
        raise _too_long(settings)
    if not reader.eof:
        raise RefusedError(400, "the compressed body ends too early")
    return plain
