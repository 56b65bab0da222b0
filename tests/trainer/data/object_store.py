"""A real S3 server on loopback, behind a proxy that counts requests and can delay, cut or refuse them."""

from __future__ import annotations

import http.client
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow.fs as fs
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

BUCKET = "bucket"


class ObjectStore:
    """Attributes:
    requests: (method, path, range or "") of every request that reached the proxy.
    faults: what happens to the next requests for objects: "reset", "503", "cut", or seconds of delay.
    is_down: every request is answered with 503.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self.address = ""
        self.requests: list[tuple[str, str, str]] = []
        self.faults: list[str | float] = []
        self.latency_s = 0.0
        self.is_down = False

    @property
    def options(self) -> str:
        """The query part of an s3:// URL."""
        return f"endpoint_override={self.address}&scheme=http&region=us-east-1"

    def url(self, path: str = "") -> str:
        return f"s3://{BUCKET}{path}?{self.options}"

    def file_system(self) -> fs.FileSystem:
        """Past the proxy, to set things up."""
        return fs.S3FileSystem(
            endpoint_override=self.server, scheme="http", region="us-east-1", allow_bucket_creation=True
        )


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A store with an empty bucket. AWS credentials must be set to anything."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    store = ObjectStore(f"{host}:{port}")
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Proxy,), {"store": store}))
    store.address = f"127.0.0.1:{proxy.server_address[1]}"
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    s3_backends.reset()  # servers of one process share what is stored
    store.file_system().create_dir(BUCKET)
    try:
        yield store
    finally:
        proxy.shutdown()
        server.stop()


class _Proxy(BaseHTTPRequestHandler):
    store: ObjectStore
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        store = self.store
        store.requests.append((self.command, self.path, self.headers.get("Range", "")))
        time.sleep(store.latency_s)
        is_object = self.path.split("?")[0].endswith(".parquet")
        fault = store.faults.pop(0) if store.faults and is_object and self.command == "GET" else None
        if store.is_down:
            fault = "503"
        if isinstance(fault, float):
            time.sleep(fault)
        elif fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()
            return
        elif fault == "503":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._forward(cut=fault == "cut")

    do_HEAD = do_GET  # noqa: N815  as http.server wants it

    def _forward(self, cut: bool) -> None:
        connection = http.client.HTTPConnection(self.store.server)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection.request(self.command, self.path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True
        connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""
