"""The Open Inference Protocol's JSON, with the binary tensor extension: a request's body -> a call; scores -> a body.

https://github.com/kserve/open-inference-protocol, and Triton's extension_binary_data.md. gRPC's messages are for
`service`, what tensors mean for `tensors`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.types as pt

from configs.errors import UserError
from embeddings.features.arrow import is_text
from trainer.serving.rows import array_of
from trainer.serving.server.calls import BytesCall, Call, Layout, Span
from trainer.serving.server.refusals import RefusedError
from trainer.serving.server.tensors import DTYPES, Given, Input, call_of, dtype_of, elements_of, numbers_of

HEADER_LENGTH = "Inference-Header-Content-Length"
_LAYOUTS = 64  # request headers whose meaning is kept: clients send the same one again and again


@dataclass(frozen=True)
class Wanted:
    """How a request wants its answer. outputs: (name, as bytes), in order; None for all of the model's."""

    id: str = ""
    outputs: tuple[tuple[str, bool], ...] | None = None
    is_binary: bool = False
    timeout_s: float | None = None


@dataclass
class Reader:
    """Requests for one model -> calls. Remembers the layout of requests that are numbers alone, by their JSON."""

    inputs: Mapping[str, Input]
    outputs: Sequence[str]
    _layouts: dict[bytes, tuple[Layout, Wanted]] = field(default_factory=dict)

    def read(self, body: bytes, header_length: int | None) -> tuple[Call, Wanted]:
        """Reads a body, of which the first `header_length` bytes are JSON; None: all of it.

        Raises:
            UserError, RefusedError: it is not a request of the protocol, or not one for this model.
        """
        if header_length is None:
            return self._parse(loads(body), memoryview(b""))
        if not 0 <= header_length <= len(body):
            raise RefusedError(400, f"{HEADER_LENGTH} is {header_length}, the body has {len(body)} bytes")
        header, data = body[:header_length], memoryview(body)[header_length:]
        known = self._layouts.get(header)
        if known is not None and len(data) == known[0].size:
            return BytesCall(known[0], data), known[1]
        request = loads(header)
        call, wanted = self._parse(request, data)
        layout = self._layout(request, call, len(data))
        if layout is not None:
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            self._layouts[header] = layout, wanted
        return call, wanted

    def _parse(self, request: Any, data: memoryview) -> tuple[Call, Wanted]:
        if not isinstance(request, dict):
            raise RefusedError(400, "the body is not a JSON object")
        tensors = _objects(request, "inputs")
        if not tensors:
            raise RefusedError(400, "the request has no inputs")
        given, place = {}, 0
        for tensor in tensors:
            name = tensor.get("name")
            if not isinstance(name, str):
                raise RefusedError(400, "an input has no name")
            if name in given:
                raise RefusedError(400, f"the input {name!r} is there twice")
            size = _size(name, tensor)
            given[name] = _given(name, tensor, size, data[place : place + (size or 0)])
            place += size or 0
        if place != len(data):
            raise RefusedError(400, f"the inputs have {place} bytes of binary data, the request {len(data)}")
        parameters = parameters_of(request)
        call = call_of(given, self.inputs, parameters.get("broadcast") is True)
        return call, self._wanted(request, parameters)

    def _wanted(self, request: Mapping[str, Any], parameters: Mapping[str, Any]) -> Wanted:
        outputs = None
        is_binary = parameters.get("binary_data_output") is True
        if request.get("outputs"):
            outputs = tuple(_output(one, self.outputs, is_binary) for one in _objects(request, "outputs"))
        id = request.get("id", "")
        if not isinstance(id, str):
            raise RefusedError(400, f"the request's id is {id!r}, not text")
        return Wanted(id, outputs, is_binary, timeout_of(parameters))

    def _layout(self, request: Mapping[str, Any], call: Call, size: int) -> Layout | None:
        """Where the numbers of such a request lie; None if there is more to it than numbers."""
        if call.shared or request.get("id"):
            return None
        spans, place = [], 0
        for tensor in request["inputs"]:
            one, count = self.inputs[tensor["name"]], elements_of("", tensor["shape"])
            if one.role != "values" or not one.width or tensor["datatype"] in ("BYTES", "BOOL") or "data" in tensor:
                return None
            dtype = DTYPES[tensor["datatype"]]
            spans.append(Span(one.column, dtype, place, place + count * dtype.itemsize, one.width))
            place += count * dtype.itemsize
        return Layout(call.rows, size, tuple(spans))


def loads(body: bytes) -> Any:
    """JSON. RefusedError: it is none."""
    try:
        return orjson.loads(body)
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None


def parameters_of(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters of a request or tensor."""
    parameters = part.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RefusedError(400, "parameters is not a JSON object")
    if any(name.startswith("shared_memory") for name in parameters):
        raise RefusedError(400, "shared memory is not offered\nSend the tensor's data in the request.")
    return parameters


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Seconds that the client waits, of the parameter `timeout` in microseconds."""
    value = parameters.get("timeout")
    if value is None or value == 0:
        return None
    if type(value) is not int or value < 0:
        raise RefusedError(400, f"the parameter timeout is {value!r}\nGive microseconds, as a whole number.")
    return value / 1e6


def _objects(part: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = part.get(key)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RefusedError(400, f"the request has no list of {key}")
    return found


def _size(name: str, tensor: Mapping[str, Any]) -> int | None:
    """Bytes of a tensor behind the JSON; None if its data are in there."""
    size = parameters_of(tensor).get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0 or "data" in tensor:
        raise RefusedError(
            400, f"input {name!r} has binary_data_size {size!r}, and data in the JSON: {'data' in tensor}"
        )
    return size


def _given(name: str, tensor: Mapping[str, Any], size: int | None, data: memoryview) -> Given:
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if not isinstance(shape, list) or not isinstance(datatype, str):
        raise RefusedError(400, f"input {name!r} has datatype {datatype!r} and shape {shape!r}\nGive both.")
    if size is not None:
        if len(data) != size:
            raise RefusedError(400, f"input {name!r} should have {size} bytes, the request ends after {len(data)}")
        return numbers_of(name, datatype, shape, data)
    values = tensor.get("data")
    if not isinstance(values, list):
        raise RefusedError(400, f"input {name!r} has no data\nGive a list, or binary_data_size.")
    flat, count = _flat(values), elements_of(name, shape)
    if len(flat) != count:
        raise UserError(f"input {name!r} has {len(flat)} elements, shape {shape} has {count}")
    return Given(datatype, tuple(shape), _typed(name, datatype, array_of(name, flat)))


def _flat(values: list[Any]) -> list[Any]:
    """Elements in row-major order: nested as the shape says, or flat already."""
    while values and type(values[0]) is list:
        if not all(type(value) is list for value in values):
            break
        values = [element for value in values for element in value]
    return values


def _typed(name: str, datatype: str, array: pa.Array) -> pa.Array:
    """JSON's values as the datatype that the request names. UserError: they are of another."""
    if pt.is_null(array.type):
        return array
    is_number = pt.is_integer(array.type) or pt.is_floating(array.type)
    if datatype == "BYTES":
        fits = is_text(array.type)
    elif datatype == "BOOL":
        dtype_of(name, datatype)
        fits = pt.is_boolean(array.type)
    else:
        fits = is_number and (dtype_of(name, datatype).kind == "f" or pt.is_integer(array.type))
    if not fits:
        raise UserError(f"input {name!r} has datatype {datatype}, its data are of type {array.type}")
    if datatype in ("BYTES", "BOOL"):
        return array
    try:
        return array.cast(pa.from_numpy_dtype(DTYPES[datatype]), safe=DTYPES[datatype].kind != "f")
    except pa.ArrowInvalid as error:
        raise UserError(f"input {name!r} holds a value outside {datatype}: {str(error).splitlines()[0]}") from None


def _output(one: Mapping[str, Any], names: Sequence[str], is_binary: bool) -> tuple[str, bool]:
    name, parameters = one.get("name"), parameters_of(one)
    check_output(name, names)
    if parameters.get("classification"):
        raise RefusedError(400, f"output {name!r} is a prediction: it cannot be returned as a classification")
    binary = parameters.get("binary_data", is_binary)
    if type(binary) is not bool:
        raise RefusedError(400, f"output {name!r} has binary_data {binary!r}, not true or false")
    return str(name), binary


def check_output(name: Any, names: Sequence[str]) -> None:
    """RefusedError: the model has no such output."""
    if name not in names:
        raise RefusedError(400, f"{name!r} is not an output of this model\nThere are: {', '.join(names)}.")


def answer(
    name: str, version: str, tasks: Sequence[str], predictions: npt.NDArray[np.float32], wanted: Wanted
) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON if bytes of tensors follow it.

    Args:
        predictions: [R, T].
    """
    rows, tail, described = len(predictions), [], []
    for task, is_binary in wanted.outputs or [(task, wanted.is_binary) for task in tasks]:
        values = np.ascontiguousarray(predictions[:, tasks.index(task)])
        one: dict[str, Any] = {"name": task, "datatype": "FP32", "shape": [rows, 1]}
        if is_binary:
            one["parameters"] = {"binary_data_size": values.nbytes}
            tail.append(values.tobytes())
        else:
            one["data"] = values
        described.append(one)
    body = {"model_name": name, "model_version": version, "outputs": described}
    if wanted.id:
        body["id"] = wanted.id
    header = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return (header, None) if not tail else (header + b"".join(tail), len(header))
