"""A small HTTP server for a bundle: JSON rows in, predictions out.

    POST /predict    {"rows": [{"user_id": 7, "history": [1, 2], "price": null}]}
                     -> {"predictions": [{"click": 0.12, "like": 0.03}]}
    GET  /health     {"status": "ok", "tasks": [...], "step": 1000, "compiled": true}
    GET  /signature  the bundle's signature.json

Keys of a row are the columns of the training data; every one must be there, null if the value is missing. A mistake in
the rows is answered with 422 and a text, and touches no other request. One process uses one bundle; run several behind
a load balancer. TLS and authentication are the balancer's.
"""

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from configs.errors import UserError
from configs.serve_config import ServeConfig
from trainer.serving.batcher import Batcher, OverloadedError
from trainer.serving.bundle import Bundle


class _BodyError(Exception):
    """A body that is not read to its end: status and text of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def serve(bundle: str, settings: ServeConfig, say: Callable[[str], None], *, verify: bool = True) -> None:
    """Answers requests until it is stopped (SIGINT, SIGTERM: open requests are finished first).

    Args:
        say: given a line when it is about to answer.
        verify: compare the checksums of the bundle's files.

    Raises:
        UserError: there is no whole bundle at `bundle`, or it cannot listen where the settings say.
    """
    with _bound(settings.host, settings.port) as listener:
        app = create_app(Bundle(bundle, verify=verify), settings)
        options = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=settings.stop_timeout_s
        )
        port = listener.getsockname()[1]
        say(f"serving {bundle} on http://{settings.host}:{port}")
        try:
            _Server(options).run(sockets=[listener])
        except OSError as error:  # of listen(): another process was quicker
            raise _cannot_listen(settings.host, port, error) from None


class _Server(uvicorn.Server):
    """Returns when it was stopped by a signal; uvicorn's own would end the process with that signal then."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that nobody can connect to yet."""
    if not 0 <= port <= 65535:  # of which getaddrinfo would take the last 16 bits
        raise _cannot_listen(host, port, ValueError("there is no such port"))
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from None
    return listener


def _cannot_listen(host: str, port: int, error: Exception) -> UserError:
    why = getattr(error, "strerror", None) or error
    return UserError(f"cannot listen on {host}, port {port}: {why}\nGive another --host or --port.")


def create_app(bundle: Bundle, settings: ServeConfig | None = None) -> Starlette:
    """The application, for any ASGI server."""
    settings = settings or ServeConfig()
    batcher = Batcher(bundle, settings.rows_per_call, settings.max_waiting_rows)
    signature = bundle.signature
    health = {
        "status": "ok",
        "tasks": list(bundle.tasks),
        "step": signature.source.step,
        "compiled": bundle.compiled,
    }

    async def predict(request: Request) -> Response:
        try:
            rows = _rows(await _body(request, settings))
            predictions = await batcher.predict(rows)
        except _BodyError as error:
            return _error(error.status, str(error))
        except UserError as error:
            return _error(422, str(error))
        except OverloadedError as error:
            return _error(503, str(error))
        named = [dict(zip(bundle.tasks, values, strict=True)) for values in predictions.tolist()]
        return JSONResponse({"predictions": named})

    async def get_health(request: Request) -> Response:
        return JSONResponse(health)

    async def get_signature(request: Request) -> Response:
        return Response(signature.model_dump_json(), media_type="application/json")

    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/health", get_health),
            Route("/signature", get_signature),
        ]
    )


async def _body(request: Request, settings: ServeConfig) -> bytes:
    """The body of a request; _BodyError when it is too long, compressed, or does not come."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise _BodyError(415, "the body has a Content-Encoding\nSend it uncompressed, without that header.")
    limit = settings.max_body_mib << 20
    too_long = _BodyError(413, f"the body is longer than {settings.max_body_mib} MiB\nSend fewer rows per request.")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for part in request.stream():  # a chunked body does not say its length
                body += part
                if len(body) > limit:
                    raise too_long
    except TimeoutError:
        raise _BodyError(408, f"the body did not come within {settings.body_timeout_s:g} s") from None
    except ClientDisconnect:
        raise _BodyError(400, "the client is gone") from None
    return bytes(body)


def _rows(body: bytes) -> list[dict]:
    """The rows of a request. UserError when it is not {"rows": [{...}]}."""
    try:
        content = json.loads(body, object_pairs_hook=_object)
    except RecursionError:
        raise UserError("the body is not JSON of rows: it is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"the body is not JSON: {error}") from None
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError('the body has no list of rows\nSend {"rows": [{"column": value, ...}, ...]}.')
    return rows


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. A key twice is refused, as `score` refuses a column twice: either value may be the one meant."""
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise UserError(f"an object has the key {twice!r} twice\nKeep one of them.")
    return values


def _error(status: int, text: str) -> Response:
    """A text may quote what is no Unicode."""
    return JSONResponse({"error": text.encode("utf-8", "backslashreplace").decode()}, status_code=status)
