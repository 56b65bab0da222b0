"""The HTTP routes, as a bare ASGI application: each step of a request is a function, and nothing lies in between.

POST /predict                                   JSON rows (`predict`)
POST /models/NAME[/versions/V]/predict          the same, of one of several models
GET  /health   /signature   /metrics            for people, bundles and Prometheus
GET  /   /openapi.json                          a page to try it, and the document
GET  /v2  /v2/health/live  /v2/health/ready     Open Inference Protocol
GET  /v2/models[/stats]  /v2/models/NAME[/versions/V][/ready /config /stats]
POST /v2/models/NAME[/versions/V]/infer
POST /v2/repository/index  /v2/repository/models/NAME/load  .../unload
"""

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import orjson

from trainer.serving.server import describe, openapi, page, predict, v2
from trainer.serving.server.body import ClientGoneError, drop_rest, read_body
from trainer.serving.server.host import Host
from trainer.serving.server.metrics import prometheus_text
from trainer.serving.server.models import Version
from trainer.serving.server.refusals import RefusedError, UnreadError, refused

log = logging.getLogger(__name__)
Headers = dict[bytes, bytes]
Send = Callable[[Any], Awaitable[None]]
_JSON, _BYTES = b"application/json", b"application/octet-stream"
_OPEN = ("/health", "/v2/health/live", "/v2/health/ready")  # without a token: whoever looks after processes has none


class Answer(NamedTuple):
    """What goes back."""

    status: int
    body: bytes
    kind: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    is_early: bool = False  # the request's body is not read to its end, and the connection ends with this answer


class App:
    """The application of one process."""

    def __init__(self, host: Host) -> None:
        self._host, self._settings = host, host.settings
        token = host.token
        self._token = None if token is None else b"Bearer " + token.encode()

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """ASGI."""
        assert scope["type"] == "http", scope["type"]
        headers = dict(scope["headers"])
        try:
            answer = await self._answer(scope["method"], scope["path"], headers, receive)
        except ClientGoneError:
            return
        except Exception as error:
            mistake = 422 if scope["path"].endswith("/predict") else 400
            answer = _refusal(refused(error, mistake), error)
        sent = [(b"content-type", answer.kind), (b"content-length", b"%d" % len(answer.body)), *answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": sent})
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body, "more_body": answer.is_early})
        if answer.is_early:
            await drop_rest(receive, self._settings)
            await send({"type": "http.response.body"})

    async def _answer(self, method: str, path: str, headers: Headers, receive: Any) -> Answer:
        if self._token is not None and path not in _OPEN:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._token):
                raise RefusedError(401, "the request has no token\nSend the header Authorization: Bearer TOKEN.")
        parts = path.strip("/").split("/")
        if parts[0] == "v2":
            return await self._v2(method, parts[1:], headers, receive)
        if parts[-1] == "predict":
            _allow(method, "POST")
            version = self._host.models.first if len(parts) == 1 else self._named(parts[:-1])
            return await self._predict(version, headers, receive)
        pages = {
            "health": self._health,
            "signature": lambda: Answer(200, self._host.models.first.bundle.signature.model_dump_json().encode()),
            "metrics": lambda: Answer(200, prometheus_text(self._host).encode(), b"text/plain; version=0.0.4"),
            "openapi.json": lambda: Answer(200, orjson.dumps(openapi.document(self._host.models))),
            "": lambda: Answer(200, page.html(self._host).encode(), b"text/html; charset=utf-8"),
        }
        if len(parts) > 1 or parts[0] not in pages:
            raise RefusedError(404, f"there is no {path}")
        _allow(method, "GET", "HEAD")
        return pages[parts[0]]()

    def _named(self, parts: Sequence[str]) -> Version:
        """models/NAME or models/NAME/versions/V."""
        if parts[0] == "models" and (len(parts) == 2 or (len(parts) == 4 and parts[2] == "versions")):
            return self._host.models.find(parts[1], parts[3] if len(parts) == 4 else "")
        raise RefusedError(404, f"there is no /{'/'.join(parts)}")

    def _health(self) -> Answer:
        version = self._host.models.first
        health = {
            "status": "ok" if self._host.is_ready else "stopping",
            "model": version.name,
            "tasks": list(version.bundle.tasks),
            "step": version.bundle.signature.source.step,
            "compiled": version.bundle.compiled,
        }
        return Answer(200 if self._host.is_ready else 503, orjson.dumps(health))

    async def _predict(self, version: Version, headers: Headers, receive: Any) -> Answer:
        begin = time.perf_counter_ns()
        body = await read_body(headers, receive, self._settings)
        with self._host.counted(version, begin) as request:
            call = predict.read_rows(version, body)
            request.parsed()
            predictions = await self._host.batcher.predict(version, call)
            request.scored()
            return Answer(200, predict.answer_rows(version.bundle.tasks, predictions))

    async def _infer(self, version: Version, headers: Headers, receive: Any) -> Answer:
        begin = time.perf_counter_ns()
        body = await read_body(headers, receive, self._settings)
        length = headers.get(v2.HEADER_LENGTH.lower().encode())
        with self._host.counted(version, begin) as request:
            call, wanted = version.reader.read(body, None if length is None else _number(length))
            request.parsed()
            predictions = await self._host.batcher.predict(version, call, wanted.timeout_s)
            request.scored()
            found, size = v2.answer(version.name, version.version, version.bundle.tasks, predictions, wanted)
        if size is None:
            return Answer(200, found)
        return Answer(200, found, _BYTES, ((v2.HEADER_LENGTH.encode(), b"%d" % size),))

    async def _v2(self, method: str, parts: Sequence[str], headers: Headers, receive: Any) -> Answer:
        models = self._host.models
        if parts[-1:] == ["infer"]:
            _allow(method, "POST")
            return await self._infer(self._named(parts[:-1]), headers, receive)
        if parts[:1] == ["repository"]:
            _allow(method, "POST")
            return await self._repository(parts[1:], headers, receive)
        _allow(method, "GET", "HEAD")
        if not parts:
            return _json(describe.SERVER | {"version": self._host.version})
        if parts[0] == "health" and parts[1:] in (["live"], ["ready"]):
            is_fine = parts[1] == "live" or self._host.is_ready
            return _json({parts[1]: is_fine}, 200 if is_fine else 503)
        if parts == ["models"]:
            return _json({"models": models.names})
        if parts == ["models", "stats"]:
            return _json({"model_stats": [self._statistics(version) for version in models.loaded]})
        if parts[-1] in ("ready", "config", "stats") and len(parts) in (3, 5):
            return self._about(self._named(parts[:-1]), parts[-1])
        version = self._named(parts)
        return _json(describe.metadata(version, models.versions(version.name)))

    def _about(self, version: Version, what: str) -> Answer:
        if what == "ready":
            return _json({"name": version.name, "ready": self._host.is_ready}, 200 if self._host.is_ready else 503)
        if what == "config":
            return _json(describe.config(version, self._settings.rows_per_call))
        return _json({"model_stats": [self._statistics(version)]})

    def _statistics(self, version: Version) -> dict[str, Any]:
        return describe.statistics(version, self._host.totals(version.name)[0])

    async def _repository(self, parts: Sequence[str], headers: Headers, receive: Any) -> Answer:
        body = await read_body(headers, receive, self._settings)
        content = v2.loads(body) if body else {}
        if not isinstance(content, dict):
            raise RefusedError(400, "the body is not a JSON object")
        if parts == ["index"]:
            return _json(self._host.models.index())
        if len(parts) == 3 and parts[0] == "models" and parts[2] in ("load", "unload"):
            version = v2.parameters_of(content).get("version")
            if version is not None and not isinstance(version, str):
                raise RefusedError(400, f"the parameter version is {version!r}, not text")
            await self._host.change(parts[1], version, is_load=parts[2] == "load")
            return _json({})
        raise RefusedError(404, f"there is no /v2/repository/{'/'.join(parts)}")


def _allow(method: str, *methods: str) -> None:
    if method not in methods:
        raise RefusedError(405, f"{method} is not for this path\nUse {' or '.join(methods)}.")


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 12:
        raise RefusedError(400, f"{v2.HEADER_LENGTH} is {text.decode('latin-1')!r}, not a number")
    return int(text)


def _json(content: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(content))


def _refusal(refusal: RefusedError | None, error: Exception) -> Answer:
    """A text may quote what is no Unicode."""
    if refusal is None:
        log.error("a request failed", exc_info=error)
        refusal = RefusedError(500, "the server failed; its log says why")
    text = str(refusal).encode("utf-8", "backslashreplace").decode()
    headers: list[tuple[bytes, bytes]] = []
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after_s))
    is_early = isinstance(refusal, UnreadError)
    if is_early:
        headers.append((b"connection", b"close"))
    return Answer(refusal.status, orjson.dumps({"error": text}), _JSON, tuple(headers), is_early)
