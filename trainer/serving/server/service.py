"""The gRPC methods of the Open Inference Protocol, in the same loop as HTTP and with the same batcher."""

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pyarrow as pa
from google.protobuf import json_format

from configs.serve_config import ServeConfig
from trainer.serving.server import describe
from trainer.serving.server.host import Host
from trainer.serving.server.messages import MESSAGES, METHODS, SERVICE
from trainer.serving.server.refusals import RefusedError, refused
from trainer.serving.server.tensors import DTYPES, Given, call_of, dtype_of, elements_of, numbers_of, texts
from trainer.serving.server.v2 import check_output, timeout_of

log = logging.getLogger(__name__)
_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def grpc_server(host: Host, address: str, credentials: grpc.ServerCredentials | None) -> tuple[grpc.aio.Server, int]:
    """A server that listens on `address`, beside those of other processes, and its port; 0: it cannot."""
    server = grpc.aio.server(options=_options(host.settings))
    server.add_generic_rpc_handlers((_handler(host),))
    try:
        if credentials is None:
            return server, server.add_insecure_port(address)
        return server, server.add_secure_port(address, credentials)
    except RuntimeError:
        return server, 0


def _options(settings: ServeConfig) -> list[tuple[str, Any]]:
    """Connections end after a while, so that clients with few of them spread over the processes anew."""
    age = int(settings.connection_age_s * 1000)
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_body_mib << 20),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_connection_age_ms", age),
        ("grpc.max_connection_age_grace_ms", settings.stop_timeout_s * 1000),
    ]


def _handler(host: Host) -> grpc.GenericRpcHandler:
    service = Service(host)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            service.guarded(getattr(service, name)),
            request_deserializer=MESSAGES[request].FromString,
            response_serializer=MESSAGES[response].SerializeToString,
        )
        for name, (request, response) in METHODS.items()
    }
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        service.ModelStreamInfer,
        request_deserializer=MESSAGES["ModelInferRequest"].FromString,
        response_serializer=MESSAGES["ModelStreamInferResponse"].SerializeToString,
    )
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


class Service:
    """The methods, by the names of the protocol."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._token = None if host.token is None else f"Bearer {host.token}"

    def guarded(self, method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        """A method whose refusals become gRPC's codes."""
        is_open = method.__name__ in ("ServerLive", "ServerReady")

        async def call(request: Any, context: Any) -> Any:
            try:
                if self._token is not None and not is_open:
                    self._check_token(context)
                return await method(request, context)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                refusal = _refusal(error)
                await context.abort(_CODES.get(refusal.status, grpc.StatusCode.INVALID_ARGUMENT), _text(refusal))

        return call

    def _check_token(self, context: Any) -> None:
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not hmac.compare_digest(given.encode(), str(self._token).encode()):
            raise RefusedError(401, "the call has no token\nSend the metadata authorization: Bearer TOKEN.")

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's names
        return MESSAGES["ServerLiveResponse"](live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return MESSAGES["ServerReadyResponse"](ready=self._host.is_ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._host.models.find(request.name, request.version)
        return MESSAGES["ModelReadyResponse"](ready=self._host.is_ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return MESSAGES["ServerMetadataResponse"](**describe.SERVER, version=self._host.version)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        version = self._host.models.find(request.name, request.version)
        found = describe.metadata(version, self._host.models.versions(version.name))
        return _filled("ModelMetadataResponse", found)

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        version = self._host.models.find(request.name, request.version)
        return _filled("ModelConfigResponse", {"config": describe.config(version, self._host.settings.rows_per_call)})

    async def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        models = self._host.models
        versions = [models.find(request.name, request.version)] if request.name else models.loaded
        found = [describe.statistics(version, self._host.totals(version.name)[0]) for version in versions]
        return _filled("ModelStatisticsResponse", {"model_stats": found})

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _filled("RepositoryIndexResponse", {"models": self._host.models.index()})

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        version = request.parameters["version"].string_param if "version" in request.parameters else None
        await self._host.change(request.model_name, version, is_load=True)
        return MESSAGES["RepositoryModelLoadResponse"]()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._host.change(request.model_name, None, is_load=False)
        return MESSAGES["RepositoryModelUnloadResponse"]()

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        begin, host = time.perf_counter_ns(), self._host
        version = host.models.find(request.model_name, request.model_version)
        with host.counted(version, begin) as counted:
            parameters = _parameters(request.parameters)
            given = _given(request)
            call = call_of(given, version.inputs, parameters.get("broadcast") is True)
            wanted = [one.name for one in request.outputs] or version.bundle.tasks
            for one in request.outputs:
                check_output(one.name, version.bundle.tasks)
                if _parameters(one.parameters).get("classification"):
                    raise RefusedError(400, f"output {one.name!r} is a prediction: it cannot be a classification")
            counted.parsed()
            predictions = await host.batcher.predict(version, call, _timeout(parameters, context))
            counted.scored()
            response = MESSAGES["ModelInferResponse"](
                model_name=version.name, model_version=version.version, id=request.id
            )
            for task in wanted:
                response.outputs.add(name=task, datatype="FP32", shape=[len(predictions), 1])
                values = np.ascontiguousarray(predictions[:, version.bundle.tasks.index(task)])
                response.raw_output_contents.append(values.tobytes())
            return response

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Answers in the order of the requests; a mistake is a message, and the stream goes on."""
        if self._token is not None:
            try:
                self._check_token(context)
            except RefusedError as refusal:
                await context.abort(_CODES[401], _text(refusal))
        async for request in requests:
            try:
                yield MESSAGES["ModelStreamInferResponse"](infer_response=await self.ModelInfer(request, context))
            except Exception as error:
                response = MESSAGES["ModelStreamInferResponse"](error_message=_text(_refusal(error)))
                response.infer_response.id = request.id
                yield response


def _refusal(error: Exception) -> RefusedError:
    refusal = refused(error, 400)
    if refusal is None:
        log.error("a call failed", exc_info=error)
        return RefusedError(500, "the server failed; its log says why")
    return refusal


def _text(refusal: RefusedError) -> str:
    return str(refusal).encode("utf-8", "backslashreplace").decode()


def _filled(name: str, content: dict[str, Any]) -> Any:
    return json_format.ParseDict(content, MESSAGES[name](), ignore_unknown_fields=True)


def _parameters(found: Any) -> dict[str, Any]:
    """Parameters as Python has them. RefusedError: shared memory."""
    parameters = {}
    for name, one in found.items():
        if name.startswith("shared_memory"):
            raise RefusedError(400, "shared memory is not offered\nSend the tensor's data in the request.")
        chosen = one.WhichOneof("parameter_choice")
        parameters[name] = getattr(one, chosen) if chosen else None
    return parameters


def _timeout(parameters: dict[str, Any], context: Any) -> float | None:
    times = [time for time in (timeout_of(parameters), context.time_remaining()) if time is not None]
    return min(times, default=None)


def _given(request: Any) -> dict[str, Given]:
    """The tensors of a request: all raw, or all as typed contents."""
    inputs, raw, given = request.inputs, request.raw_input_contents, {}
    if not inputs:
        raise RefusedError(400, "the request has no inputs")
    if raw and len(raw) != len(inputs):
        raise RefusedError(400, f"the request has {len(inputs)} inputs and {len(raw)} raw_input_contents")
    for place, one in enumerate(inputs):
        name = one.name
        if name in given:
            raise RefusedError(400, f"the input {name!r} is there twice")
        if len(one.parameters):
            _parameters(one.parameters)
        if not raw:
            given[name] = _typed(name, one)
            continue
        if one.HasField("contents"):
            raise RefusedError(400, f"input {name!r} has contents, and the request raw_input_contents")
        given[name] = numbers_of(name, one.datatype, list(one.shape), raw[place])
    return given


def _typed(name: str, one: Any) -> Given:
    """A tensor whose elements are in the message itself."""
    shape = list(one.shape)
    count = elements_of(name, shape)
    if one.datatype != "BYTES":
        dtype_of(name, one.datatype)
    used = [field.name for field, _ in one.contents.ListFields()]
    wanted = _CONTENTS.get(one.datatype)
    if wanted is None or any(field != wanted for field in used):
        raise RefusedError(400, f"input {name!r} has datatype {one.datatype} and {', '.join(used) or 'no contents'}")
    elements: Sequence[Any] = getattr(one.contents, wanted)
    if len(elements) != count:
        raise RefusedError(400, f"input {name!r} has {len(elements)} elements, shape {shape} has {count}")
    if one.datatype == "BYTES":
        return Given("BYTES", tuple(shape), texts(list(elements)))
    try:
        values = pa.array(elements, pa.from_numpy_dtype(DTYPES[one.datatype]))
    except (pa.ArrowInvalid, OverflowError) as error:
        raise RefusedError(400, f"input {name!r} holds a value outside {one.datatype}: {error}") from None
    return Given(one.datatype, tuple(shape), values.to_numpy(zero_copy_only=False))
