"""A real server on a real port."""

import asyncio
import http.client
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import uvicorn
from torch._inductor import config as inductor

from configs.errors import UserError
from configs.serve_config import ServeConfig
from tests.trainer.export.exported_runs import make_run, rows
from trainer.export.write import export
from trainer.serving.batcher import Batcher, OverloadedError, score
from trainer.serving.bundle import Bundle
from trainer.serving.server import create_app, serve

SETTINGS = ServeConfig(max_body_mib=1, body_timeout_s=1.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    with inductor.patch({"cpp.cxx": ("/no/such/compiler",)}):
        return Bundle(export(make_run(tmp_path_factory.mktemp("bundle")).training.run_dir))


@pytest.fixture(scope="module")
def url(bundle):
    server = uvicorn.Server(uvicorn.Config(create_app(bundle, SETTINGS), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def call(url, path, body=None):
    """(status, JSON) of a request."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data), timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def json_rows(count):
    return rows(count).to_pylist()


def test_predictions_are_the_bundles(url, bundle):
    status, answer = call(url, "/predict", {"rows": json_rows(20)})
    assert status == 200
    found = [[row["click"], row["watch"]] for row in answer["predictions"]]
    np.testing.assert_allclose(found, bundle.predict(rows(20)), atol=1e-6)


def test_many_clients_get_their_own_rows(url, bundle):
    expected = bundle.predict(rows(100))
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda row: call(url, "/predict", {"rows": [row]}), json_rows(100)))
    found = [[a["predictions"][0]["click"], a["predictions"][0]["watch"]] for _, a in answers]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_health_and_signature(url, bundle):
    assert call(url, "/health") == (200, {"status": "ok", "tasks": ["click", "watch"], "step": 7, "compiled": False})
    status, signature = call(url, "/signature")
    assert (status, signature["columns"]["price"]) == (200, "double")


def test_no_rows(url):
    assert call(url, "/predict", {"rows": []}) == (200, {"predictions": []})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "the body is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"rows": [{"age": 1, "price": 2.0, "age": 3}]}', "an object has the key 'age' twice"),
        ([], "the body has no list of rows"),
        ({"rows": [1]}, "the body has no list of rows"),
        ({"rows": [{}]}, "row 0 has no 'liked'"),
        ({"rows": [{**json_rows(1)[0], "user": 5}]}, "column 'user' has integers, in training it had text"),
        ({"rows": [{**json_rows(1)[0], "liked": ["a"]}]}, "column 'liked' has text"),
        (
            {"rows": [{**json_rows(1)[0], "liked": [1, 7.5]}]},
            "row 0: column 'liked' holds 7.5, in training it had integers",
        ),
        ({"rows": [{**json_rows(1)[0], "liked": [[1]]}]}, "row 0: 'liked' holds a list in a list"),
        ({"rows": [{**json_rows(1)[0], "price": float("nan")}]}, "row 0: column 'price' is nan"),
        ({"rows": [{**json_rows(1)[0], "price": 10**400}]}, "row 0: column 'price' is inf"),
        ({"rows": [{**json_rows(1)[0], "user": "\ud83d"}]}, "row 0: 'user' holds '\\ud83d', which is no Unicode text"),
        ({"rows": [{**json_rows(1)[0], "item": [500], "item_weight": [1.0]}]}, "has ID 500, outside table 'item'"),
    ],
)
def test_mistakes_are_explained(url, body, text):
    status, answer = call(url, "/predict", body)
    assert status == 422
    assert text in answer["error"]


def test_compressed_bodies_are_refused_by_name(url):
    request = urllib.request.Request(url + "/predict", b"\x1f\x8b", {"Content-Encoding": "gzip"})
    with pytest.raises(urllib.error.HTTPError, match="415"):
        urllib.request.urlopen(request, timeout=30)


def test_unknown_path(url):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url + "/nothing", timeout=30)


def test_a_mistake_hits_its_own_request_only(bundle):
    good = json_rows(3)
    results = score(bundle, [good, [{}], good[:1]])
    assert isinstance(results[1], UserError)
    np.testing.assert_allclose(results[0], bundle.predict(rows(3)), atol=1e-6)
    np.testing.assert_allclose(results[2], bundle.predict(rows(3).slice(0, 1)), atol=1e-6)


def test_full_server_turns_requests_away(bundle):
    async def overload():
        batcher = Batcher(bundle, max_rows=2, max_waiting=4)
        return await asyncio.gather(*(batcher.predict(json_rows(2)) for _ in range(4)), return_exceptions=True)

    results = asyncio.run(overload())
    assert [isinstance(result, OverloadedError) for result in results] == [False, False, True, True]


def test_waiting_requests_share_a_call(bundle):
    batcher = Batcher(bundle, max_rows=4, max_waiting=100)

    async def take():
        tasks = [asyncio.create_task(batcher.predict(json_rows(n))) for n in (1, 2, 1, 3, 9, 1)]
        await asyncio.sleep(0)
        batcher._worker.cancel()
        taken = []
        while batcher._waiting:
            taken.append([len(request) for request, _ in batcher._take()])
        for task in tasks:
            task.cancel()
        return taken

    assert asyncio.run(take()) == [[1, 2, 1], [3], [9], [1]]
    assert batcher._rows_waiting == 0


@pytest.mark.parametrize("is_chunked", [True, False])
def test_long_bodies_are_refused(url, is_chunked):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    headers = {"Transfer-Encoding": "chunked"} if is_chunked else {"Content-Length": str(2 << 20)}
    connection.putrequest("POST", "/predict")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    if is_chunked:
        part = b" " * (1 << 18)
        for _ in range(5):
            connection.send(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    answer = connection.getresponse()
    assert (answer.status, "longer than 1 MiB" in json.load(answer)["error"]) == (413, True)


def test_a_client_that_stops_in_the_middle_is_answered(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", None), ("no-such-host.invalid", 8080), ("127.0.0.1", 99999), ("127.0.0.1", -1)]
)
def test_where_it_cannot_listen(bundle, host, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = port or taken.getsockname()[1]
        given = ServeConfig().model_copy(update={"host": host, "port": port})  # as options are
        with pytest.raises(UserError, match=f"cannot listen on {host}, port {port}: .*\nGive another"):
            serve(str(bundle.folder), given, print)


def test_it_returns_when_it_is_stopped(bundle):
    said = []

    def stop():
        deadline = time.monotonic() + 60
        while not said and time.monotonic() < deadline:
            time.sleep(0.05)
        port = int(said[0].rpartition(":")[2])
        while time.monotonic() < deadline:
            try:
                client = socket.create_connection(("127.0.0.1", port), 1)
                break
            except OSError:
                time.sleep(0.05)
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
        client.settimeout(30)
        client.recv(100)
        client.close()

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    serve(str(bundle.folder), ServeConfig(port=0, body_timeout_s=2.0), said.append)
    stopper.join(10)
    assert not stopper.is_alive()
