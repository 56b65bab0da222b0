"""What whoever runs a server relies on, by real clients: TLS, a token, limits, deadlines, draining, the way back."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from tests.trainer.export.exported_runs import exported, rows
from tests.trainer.serving.server.running import running
from tests.trainer.serving.server.test_tensors import columns, inputs
from trainer.serving.signature import SIGNATURE, read_signature, write_signature

COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("bundle"))


def body_of(count: int) -> bytes:
    return json.dumps({"rows": rows(count).drop_columns(["row", "click"]).to_pylist()}).encode()


def ask(server, body=None, path="/predict", **given):
    """(status, headers, content) of one request on a connection of its own."""
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.request("GET" if body is None else "POST", path, body, **given)
    answer = connection.getresponse()
    return answer.status, answer.headers, json.loads(answer.read())


def tensors(client, count=COUNT):
    return inputs(client, columns(rows(count)))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "certificate.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", files[0], "-keyout", files[1]]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return files


@pytest.fixture(scope="module")
def locked(folder, certificate):
    settings = {"tls_certificate": certificate[0], "tls_key": certificate[1]}
    with running(("ranker", str(folder)), token="open sesame", **settings) as server:
        yield server


def test_https_with_a_token(locked, certificate):
    context = ssl.create_default_context(cafile=certificate[0])
    found = {}
    for name, headers in (("none", {}), ("wrong", {"Authorization": "Bearer x"})):
        connection = http.client.HTTPSConnection(locked.http, timeout=30, context=context)
        connection.request("POST", "/predict", body_of(2), headers)
        found[name] = connection.getresponse().status
    connection = http.client.HTTPSConnection(locked.http, timeout=30, context=context)
    connection.request("GET", "/health")
    found["health"] = connection.getresponse().status
    right = {"Authorization": "Bearer open sesame"}
    connection = http.client.HTTPSConnection(locked.http, timeout=30, context=context)
    connection.request("POST", "/predict", body_of(2), right)
    answer = connection.getresponse()
    assert found | {"right": answer.status} == {"none": 401, "wrong": 401, "health": 200, "right": 200}
    assert len(json.loads(answer.read())["predictions"]) == 2


def test_plain_http_on_the_port_of_https_hurts_nobody(locked, certificate):
    with socket.create_connection(tuple(locked.http.split(":")), timeout=10) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):  # it may hang up with bytes unread
            assert b"200" not in client.recv(1000)
    test_https_with_a_token(locked, certificate)


def test_grpc_with_tls_and_a_token(locked, certificate):
    with triton_grpc.InferenceServerClient(locked.grpc, ssl=True, root_certificates=certificate[0]) as client:
        assert client.is_server_live()
        with pytest.raises(InferenceServerException, match="no token") as refused:
            client.infer("ranker", tensors(triton_grpc))
        answer = client.infer("ranker", tensors(triton_grpc), headers={"authorization": "Bearer open sesame"})
    assert refused.value.status() == str(grpc.StatusCode.UNAUTHENTICATED)
    assert answer.as_numpy("click").shape == (COUNT, 1)


@pytest.fixture(scope="module")
def small(folder):
    """Takes few rows at a time, and short bodies."""
    with running(("ranker", str(folder)), max_waiting_rows=8, rows_per_call=1, max_body_mib=1) as server:
        yield server


def test_a_full_server_says_when_to_come_again(small):
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(ask, small, body_of(700))
        deadline = time.monotonic() + 20
        while not small.host.batcher.rows_waiting:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        status, headers, content = ask(small, body_of(1))
        with (
            triton_grpc.InferenceServerClient(small.grpc) as client,
            pytest.raises(InferenceServerException) as refused,
        ):
            client.infer("ranker", tensors(triton_grpc))
        assert large.result()[0] == 200  # one that comes to an empty server is taken, whatever its size
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "rows are waiting already" in content["error"]
    assert refused.value.status() == str(grpc.StatusCode.UNAVAILABLE)
    assert ask(small, body_of(1))[0] == 200


def test_a_request_whose_time_is_up(small):
    with triton_http.InferenceServerClient(small.http) as client:
        with pytest.raises(InferenceServerException, match="time that the request gave is up"):
            client.infer("ranker", tensors(triton_http, 4), timeout=1)  # microseconds
        assert client.infer("ranker", tensors(triton_http, 4), timeout=60_000_000).as_numpy("click").shape == (4, 1)
    with triton_grpc.InferenceServerClient(small.grpc) as client:
        with pytest.raises(InferenceServerException) as refused:
            client.infer("ranker", tensors(triton_grpc, 4), timeout=1)
        assert refused.value.status() == str(grpc.StatusCode.DEADLINE_EXCEEDED)
        answer = client.infer("ranker", tensors(triton_grpc, 4), client_timeout=60)
    assert answer.as_numpy("click").shape == (4, 1)


def test_a_call_that_is_too_long(small):
    given = {"price": np.zeros(200_000)}
    with triton_grpc.InferenceServerClient(small.grpc) as client, pytest.raises(InferenceServerException) as refused:
        client.infer("ranker", inputs(triton_grpc, given))
    assert refused.value.status() == str(grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert ask(small, bytes(2 << 20))[0] == 413


def test_it_drains(folder):
    """It says that it is not ready, answers for a while, then finishes what is open, and takes nothing new."""
    with running(("ranker", str(folder)), drain_s=2.0) as server:
        body = body_of(2)
        slow = http.client.HTTPConnection(server.http, timeout=30)
        slow.putrequest("POST", "/predict")
        slow.putheader("Content-Length", str(len(body)))
        slow.endheaders(body[:100])
        server.stop()
        while ask(server, path="/v2/health/live")[0] == 200 and ask(server, path="/v2/health/ready")[0] == 200:
            time.sleep(0.01)
        assert ask(server, body)[0] == 200
        assert ask(server, path="/health")[2]["status"] == "stopping"
        with pytest.raises(OSError):  # noqa: PT011, PT012
            while ask(server, path="/health"):
                time.sleep(0.01)
        slow.send(body[100:])
        assert slow.getresponse().status == 200
        with pytest.raises(OSError, match=r"[Rr]efused|reset"):
            ask(server, body)


def test_the_way_back_to_the_version_before(folder, tmp_path):
    """A bundle is replaced, loaded and taken back while clients ask; each answer is from one of the two."""
    link = tmp_path / "current"
    link.symlink_to(folder)
    newer = tmp_path / "newer"
    shutil.copytree(folder, newer)
    signature = read_signature(folder)
    (newer / SIGNATURE).unlink()
    source = signature.source.model_copy(update={"step": 9})
    write_signature(newer, signature.model_copy(update={"source": source}))
    with running(("ranker", str(link)), repository_control=True) as server:
        client = triton_http.InferenceServerClient(server.http)

        def version(client=client):
            return client.infer("ranker", tensors(triton_http)).get_response()["model_version"]

        def many():
            with triton_http.InferenceServerClient(server.http) as own:  # a client is for one thread
                return {version(own) for _ in range(40)}

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(many) for _ in range(2)]
            assert version() == "7"
            draft = tmp_path / "draft"
            draft.symlink_to(newer)
            os.replace(draft, link)
            client.load_model("ranker")
            assert version() == "9"
            load(server, "7")
            assert version() == "7"
            load(server, "9")
            assert version() == "9"
            assert {one for future in asking for one in future.result()} <= {"7", "9"}
        status, _, content = ask(server, b'{"parameters": {"version": "8"}}', "/v2/repository/models/ranker/load")
        assert (status, "no version '8'" in content["error"]) == (404, True)
        client.close()


def load(server, version):
    body = json.dumps({"parameters": {"version": version}}).encode()
    assert ask(server, body, "/v2/repository/models/ranker/load")[0] == 200
