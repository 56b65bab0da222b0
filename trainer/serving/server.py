"""A small HTTP server for a bundle: JSON rows in, predictions out.

    POST /predict    {"rows": [{"user_id": 7, "history": [1, 2], "price": null}]}
                     -> {"predictions": [{"click": 0.12, "like": 0.03}]}
    GET  /health     {"status": "ok", "tasks": [...], "step": 1000, "compiled": true}
    GET  /signature  the bundle's signature.json

Keys of a row are the columns of the training data; every one must be there, null if the value is missing. A mistake in
the rows is answered with 422 and a text, and touches no other request. One process uses one bundle; run several behind
a load balancer. TLS and authentication are the balancer's.
"""

import json

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from configs.errors import UserError
from trainer.serving.batcher import Batcher, OverloadedError
from trainer.serving.bundle import Bundle

_LARGEST_BODY = 16 << 20


def serve(bundle: str, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Answers requests until it is stopped (SIGINT, SIGTERM: open requests are finished first).

    Raises:
        UserError: there is no bundle at `bundle`.
    """
    uvicorn.run(create_app(Bundle(bundle)), host=host, port=port, log_level="warning", access_log=False)


def create_app(bundle: Bundle) -> Starlette:
    """The application, for any ASGI server."""
    batcher = Batcher(bundle)
    signature = bundle.signature
    health = {
        "status": "ok",
        "tasks": list(bundle.tasks),
        "step": signature.source.step,
        "compiled": bundle.compiled,
    }

    async def predict(request: Request) -> Response:
        if int(request.headers.get("content-length", 0)) > _LARGEST_BODY:
            return _error(413, f"the body is longer than {_LARGEST_BODY} bytes; send fewer rows a request")
        try:
            rows = _rows(await request.body())
            predictions = await batcher.predict(rows)
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


def _rows(body: bytes) -> list[dict]:
    """The rows of a request. UserError when it is not {"rows": [{...}]}."""
    try:
        content = json.loads(body)
    except ValueError as error:
        raise UserError(f"the body is no JSON: {error}") from None
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError('the body has no list of rows\nSend {"rows": [{"column": value, ...}, ...]}.')
    return rows


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status)
