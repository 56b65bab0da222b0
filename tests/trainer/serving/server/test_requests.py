"""JSON rows over HTTP, from a real server on a real port, and what its batcher does with them."""

import asyncio
import dataclasses
import gzip
import http.client
import json
import socket
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from configs.errors import UserError
from configs.serve_config import ServeConfig
from tests.trainer.export.exported_runs import exported, rows
from tests.trainer.serving.server.running import running, scored, version_of
from trainer.serving.bundle import Bundle
from trainer.serving.server.batcher import Batcher, score
from trainer.serving.server.board import Totals
from trainer.serving.server.predict import read_rows
from trainer.serving.server.scoring import Durations


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle(exported(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def url(bundle):
    with running(("ranker", str(bundle.folder)), max_body_mib=1, body_timeout_s=1.0, grpc_port=None) as server:
        yield server.url


def call(url, path, body=None):
    """(status, JSON) of a request."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data), timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def json_rows(count):
    return rows(count).drop_columns(["row", "click"]).to_pylist()


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
    assert call(url, "/health") == (
        200,
        {"status": "ok", "model": "ranker", "tasks": ["click", "watch"], "step": 7, "compiled": False},
    )
    status, signature = call(url, "/signature")
    assert (status, signature["columns"]["price"]) == (200, "double")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "the body is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"rows": [{"age": 1, "price": 2.0, "age": 3}]}', "an object has the key 'age' twice"),
        ([], "the body has no list of rows"),
        ({"rows": [1]}, "the body has no list of rows"),
        ({"rows": []}, "the request has no rows"),
        ({"rows": [{}]}, "row 0 has no 'liked'"),
        ({"rows": [{**json_rows(1)[0], "prise": 1.0}]}, "row 0 has 'prise', which is not a column of this model"),
        ({"rows": [{"price": 1.0}], "shared": {"pric": 1.0}}, "Did you mean 'price'?"),
        ({"rows": [{"price": 1.0}], "shared": {"price": 1.0}}, "row 0 has 'price', which is shared as well"),
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
        ({"rows": [{**json_rows(1)[0], "item": [1, 2], "item_weight": [1.0]}]}, "has 2 IDs, column 'item_weight' 1"),
        ({"rows": [{**json_rows(1)[0], "liked": [2**64]}]}, "row 0: column 'liked' holds 1.8446744073709552e+19"),
    ],
)
def test_mistakes_are_explained(url, body, text):
    status, answer = call(url, "/predict", body)
    assert status == 422
    assert text in answer["error"]


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies(url, bundle, name, pack):
    body = pack(json.dumps({"rows": json_rows(1)}).encode())
    request = urllib.request.Request(url + "/predict", body, {"Content-Encoding": name})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert json.load(response)["predictions"][0]["click"] == pytest.approx(bundle.predict(rows(1))[0, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", b"x", 415),
        ("gzip", b"\x1f\x8b", 400),
        ("gzip", gzip.compress(bytes(5 << 20)), 413),
        ("gzip", gzip.compress(b"{}")[:-9], 400),
    ],
)
def test_compressed_bodies_that_are_refused(url, encoding, body, status):
    request = urllib.request.Request(url + "/predict", body, {"Content-Encoding": encoding})
    with pytest.raises(urllib.error.HTTPError, match=str(status)):
        urllib.request.urlopen(request, timeout=30)


def test_unknown_path(url):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url + "/nothing", timeout=30)


def test_what_rows_have_in_common_is_sent_once(url, bundle):
    table = rows(1).take([0] * 20)
    table = table.set_column(table.column_names.index("price"), "price", pa.array(np.arange(20.0)))
    first = json_rows(1)[0]
    shared = {name: value for name, value in first.items() if name != "price"}
    body = {"shared": shared, "rows": [{"price": float(price)} for price in range(20)]}
    status, answer = call(url, "/predict", body)
    assert status == 200
    np.testing.assert_allclose([row["click"] for row in answer["predictions"]], bundle.predict(table)[:, 0], atol=1e-6)


def test_users_with_as_many_candidates_are_scored_together(bundle):
    version, table, calls, expected = version_of(bundle), rows(3), [], []
    for place, user in enumerate(json_rows(3)):
        shared = {name: value for name, value in user.items() if name != "price"}
        body = {"shared": shared, "rows": [{"price": float(price)} for price in range(5)]}
        calls.append(read_rows(version, json.dumps(body).encode()))
        alike = table.take([place] * 5)
        expected.append(
            bundle.predict(alike.set_column(alike.column_names.index("price"), "price", pa.array(np.arange(5.0))))
        )
    assert len({call.kind for call in calls}) == 1
    for found, wanted in zip(score(version, calls, Durations()), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_mistake_hits_its_own_request_only(bundle):
    version, good, bad = version_of(bundle), json_rows(3), json_rows(1)
    bad[0] |= {"item": [500], "item_weight": [1.0]}
    results = scored(version, [good, bad, good[:1]])
    assert isinstance(results[1], UserError)
    np.testing.assert_allclose(results[0], bundle.predict(rows(3)), atol=1e-6)
    np.testing.assert_allclose(results[2], bundle.predict(rows(3).slice(0, 1)), atol=1e-6)


def run_all(bundle, settings, counts, timeout_s=None):
    """Calls of so many rows, sent at once; exceptions as results."""
    version, batcher = version_of(bundle), Batcher(settings)
    calls = [read_rows(version, json.dumps({"rows": json_rows(count)}).encode()) for count in counts]

    async def send():
        sent = (batcher.predict(version, call, timeout_s) for call in calls)
        return await asyncio.gather(*sent, return_exceptions=True)

    return asyncio.run(send()), version, batcher


def test_full_server_turns_requests_away(bundle):
    results, _, _ = run_all(bundle, ServeConfig(rows_per_call=2, max_waiting_rows=4), [2] * 4)
    assert [getattr(result, "status", None) for result in results] == [None, None, 503, 503]
    assert results[2].retry_after_s == 1


def test_waiting_requests_share_a_call(bundle):
    results, version, batcher = run_all(bundle, ServeConfig(rows_per_call=4), [1, 2, 1, 3, 9, 1])
    for count, result in zip([1, 2, 1, 3, 9, 1], results, strict=True):
        np.testing.assert_allclose(result, bundle.predict(rows(count)), atol=1e-6)
    counted = Totals(*version.counters.values[: len(dataclasses.fields(Totals))])
    assert (counted.rows, counted.batches, batcher.rows_waiting) == (17, 2 + 3, 0)


def test_what_calls_share_is_no_work_for_their_rows(bundle):
    version, batcher = version_of(bundle), Batcher(ServeConfig(rows_per_call=16))
    shared = {name: value for name, value in json_rows(1)[0].items() if name != "price"}
    body = json.dumps({"shared": shared, "rows": [{"price": float(price)} for price in range(16)]}).encode()

    async def send():
        return await asyncio.gather(*(batcher.predict(version, read_rows(version, body)) for _ in range(4)))

    first, *others = asyncio.run(send())
    for found in others:
        np.testing.assert_allclose(found, first, atol=1e-6)
    counted = Totals(*version.counters.values[: len(dataclasses.fields(Totals))])
    assert (counted.rows, counted.batches, batcher.rows_waiting) == (64, 1, 0)


def test_a_call_whose_time_is_up(bundle):
    results, _, _ = run_all(bundle, ServeConfig(), [1, 600], timeout_s=1e-9)
    assert [result.status for result in results] == [504, 504]


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
