"""What checks work with: a connection to a server under test, and requests made from its model's metadata."""

import http.client
import json
import struct
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

DTYPES = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, or the JSON part of one with binary tensors."""
        length = self.headers.get(HEADER_LENGTH.lower())
        return json.loads(self.body if length is None else self.body[: int(length)])

    @property
    def binary(self) -> bytes:
        """What follows the JSON."""
        return self.body[int(self.headers[HEADER_LENGTH.lower()]) :]


class Speaker:
    """A server, and the model that is asked for. metadata: of the model."""

    def __init__(self, url: str, model: str) -> None:
        self.address, self.model = urlsplit(url).netloc, model
        self.path = f"/v2/models/{model}"
        reply = self.get(self.path)
        assert reply.status == 200, f"{self.path}: {reply.status} {reply.body[:300]!r}"
        self.metadata = reply.json
        server = self.get("/v2")
        self.extensions = server.json.get("extensions", []) if server.status == 200 else []

    def send(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        """GET."""
        return self.send("GET", path)

    def post(self, body: Any, path: str | None = None) -> Reply:
        """A JSON request; for inference, if no path is given."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", path or self.path + "/infer", data, {"Content-Type": "application/json"})

    def post_binary(self, header: Any, tail: bytes, length: int | str | None = None) -> Reply:
        """A request with binary tensors."""
        head = header if isinstance(header, bytes) else json.dumps(header).encode()
        headers = {HEADER_LENGTH: str(len(head) if length is None else length)}
        return self.send(
            "POST", self.path + "/infer", head + tail, {**headers, "Content-Type": "application/octet-stream"}
        )

    def inputs(self, rows: int = 2, step: int = 0) -> list[dict[str, Any]]:
        """Tensors for all of the model's inputs. step: other values than 0 gives."""
        return [
            {"name": one["name"], "datatype": one["datatype"], "shape": shape, "data": values_of(one, shape, step)}
            for one in self.metadata["inputs"]
            for shape in [shape_of(one, rows)]
        ]

    def binary_inputs(self, rows: int = 2, step: int = 0) -> tuple[list[dict[str, Any]], bytes]:
        """The same, their values as bytes."""
        described, tail = [], b""
        for one in self.inputs(rows, step):
            data = bytes_of(one)
            tail += data
            described.append(
                {key: one[key] for key in ("name", "datatype", "shape")}
                | {"parameters": {"binary_data_size": len(data)}}
            )
        return described, tail

    def scores(self, body: Any) -> dict[str, np.ndarray]:
        """The outputs of a request that is answered."""
        reply = self.post(body)
        assert reply.status == 200, reply.body[:500]
        return {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in reply.json["outputs"]}


def shape_of(one: dict[str, Any], rows: int) -> list[int]:
    """The first dimension is the rows', any other that is free is 1."""
    shape = [int(size) for size in one["shape"]]
    return [rows if place == 0 and size == -1 else max(size, 1) for place, size in enumerate(shape)]


def values_of(one: dict[str, Any], shape: list[int], step: int = 0) -> list[Any]:
    """Values of a tensor: flat, differing from row to row."""
    count = int(np.prod(shape))
    if one["datatype"] == "BYTES":
        return [f"a{(place + step) % 5}" for place in range(count)]
    if one["datatype"] == "BOOL":
        return [(place + step) % 2 == 0 for place in range(count)]
    if one["datatype"].startswith("FP"):
        return [0.5 + (place + step) % 7 for place in range(count)]
    return [(place + step) % 3 for place in range(count)]


def bytes_of(one: dict[str, Any]) -> bytes:
    """A tensor's values as the binary extension has them."""
    if one["datatype"] == "BYTES":
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in one["data"])
    return np.array(one["data"], DTYPES[one["datatype"]]).tobytes()
