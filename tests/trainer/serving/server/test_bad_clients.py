"""What clients do by mistake or on purpose: each is answered or hung up on, the next one finds the server as it was."""

import http.client
import json
import os
import random
import socket
import time

import numpy as np
import pytest

from tests.trainer.export.exported_runs import exported, rows
from tests.trainer.serving.server.running import running

SECONDS = 0.5  # for heads and bodies


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = exported(tmp_path_factory.mktemp("bundle"))
    with running(("ranker", str(folder)), max_body_mib=1, body_timeout_s=SECONDS) as server:
        yield server


@pytest.fixture(autouse=True)
def fine_afterwards(server):
    yield
    assert status_of(server, good_body()) == 200


def good_body():
    return json.dumps({"rows": rows(3).drop_columns(["row", "click"]).to_pylist()}).encode()


def status_of(server, body):
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.request("POST", "/predict", body)
    return connection.getresponse().status


def connected(address):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def all_of(client):
    """What comes back until the other side hangs up."""
    found = b""
    try:
        while part := client.recv(1 << 16):
            found += part
    except ConnectionResetError:
        pass
    return found


def first_of(client):
    """What comes first, or nothing, from one who may hang up with bytes unread."""
    try:
        return client.recv(1000)
    except ConnectionResetError:
        return b""


def head_of(length):
    return f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_garbage(server, protocol, seed):
    with connected(getattr(server, protocol)) as client:
        client.sendall(random.Random(seed).randbytes(5000))
        if protocol == "http":
            assert all_of(client).startswith(b"HTTP/1.1 400")
        else:
            assert b"HTTP/1.1 200" not in first_of(client)


def test_a_gigabyte_is_refused_before_it_is_sent(server):
    with connected(server.http) as client:
        client.sendall(head_of(1 << 30))
        assert client.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_length_that_nobody_can_have(server):
    with connected(server.http) as client:
        client.sendall(head_of("9" * 30))
        assert client.recv(1000).startswith(b"HTTP/1.1 4")


def test_a_stream_without_end(server):
    """It has its answer while it sends, and an end."""
    part = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    with connected(server.http) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + part * 17)
        assert client.recv(1000).startswith(b"HTTP/1.1 413")
        begin = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
            while time.monotonic() < begin + SECONDS + 5:
                client.sendall(part)


def test_a_client_that_sends_all_before_it_reads(server):
    """What it sends is more than the sockets hold, and the answer is there all the same."""
    with connected(server.http) as client:
        client.sendall(head_of(50 << 20))
        client.sendall(bytes(50 << 20))
        assert client.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_body_in_many_tiny_chunks(server):
    body = good_body()
    with connected(server.http) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        client.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert all_of(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", b"POST /pred", b"POST /predict HTTP/1.1\r\nHost: x\r\n", head_of(500) + b"{"])
def test_a_client_that_stops(server, sent):
    with connected(server.http) as client:
        client.sendall(sent)
        begin = time.monotonic()
        assert all_of(client).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - begin < SECONDS + 5


def test_a_head_that_drips(server):
    with connected(server.http) as client:
        begin = time.monotonic()
        try:
            while time.monotonic() < begin + SECONDS + 10:
                client.sendall(b"x")
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            return
    pytest.fail("it waits for ever")


def test_a_head_without_end(server):
    with connected(server.http) as client:
        try:
            client.sendall(b"GET / HTTP/1.1\r\n" + b"".join(b"a%d: %s\r\n" % (i, b"b" * 1000) for i in range(5000)))
        except (BrokenPipeError, ConnectionResetError):
            return
        assert all_of(client).startswith(b"HTTP/1.1 4")


def test_clients_that_leave(server):
    body = good_body()
    for place in (10, 100, len(head_of(len(body))) + 20, None):
        for _ in range(20):
            with connected(server.http) as client:
                client.sendall((head_of(len(body)) + body)[:place])


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_does_not_grow(server):
    """After a first round, which may fill caches, hundreds of mistakes leave nothing behind."""

    def round_of_mistakes():
        for place in range(60):
            status_of(server, b"[" * 10_000)
            status_of(server, b'{"rows": [%s' % (b'{"a": 1},' * 1000))
            row = rows(1).drop_columns(["row", "click"]).to_pylist()[0] | {"price": f"no number {place}"}
            status_of(server, json.dumps({"rows": [row]}).encode())
            with connected(server.http) as client:
                client.sendall(head_of(500_000) + bytes(200_000))
            test_a_gigabyte_is_refused_before_it_is_sent(server)
            if place % 20 == 0:
                test_a_stream_without_end(server)
                test_a_body_in_many_tiny_chunks(server)
            v2 = np.random.default_rng(place).bytes(1000)
            connection = http.client.HTTPConnection(server.http, timeout=30)
            header = b'{"inputs": [{"name": "x%d"}]}' % place
            lengths = {"Inference-Header-Content-Length": str(len(header))}
            connection.request("POST", "/v2/models/ranker/infer", header + v2, lengths)
            connection.getresponse().read()

    round_of_mistakes()
    before = resident()
    round_of_mistakes()
    round_of_mistakes()
    assert resident() - before < 15 << 20
