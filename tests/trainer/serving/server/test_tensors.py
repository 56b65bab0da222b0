"""Raw columns as tensors: what a client may send, over HTTP and gRPC, gets what `score` says of the same rows.

Clients are tritonclient's own, and bytes that nobody would send on purpose.
"""

import asyncio
import http.client
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tests.trainer.export.exported_runs import exported, rows
from tests.trainer.serving.server.running import running
from trainer.serving.bundle import Bundle
from trainer.serving.server.messages import MESSAGES
from trainer.serving.server.tensors import DTYPES

COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def server(folder):
    with running(("ranker", str(folder)), repository_control=True) as server:
        yield server


@pytest.fixture(scope="module")
def expected(folder):
    return Bundle(folder).predict(rows(COUNT))


def columns(table):
    """name -> (datatype, values) of rows, with their nulls and lists as the protocol has them."""
    found = {}
    for name in ("liked", "item", "item_weight", "tag", "vector", "user", "age", "price"):
        values = table[name].to_pylist()
        if name == "vector":
            found[name] = np.array([value or [0.0] * 3 for value in values])
            found["vector.valid"] = np.array([value is not None for value in values])
        elif isinstance(next(value for value in values if value is not None), list):
            lists = [value or [] for value in values]
            flat = [element for one in lists for element in one]
            found[name] = np.array(flat, object if name == "tag" else None)
            found[name + ".lengths"] = np.array([len(one) for one in lists], np.int32)
        elif name == "user":
            found[name] = np.array([value or "" for value in values], object)
            found["user.valid"] = np.array([value is not None for value in values])
        else:
            found[name] = np.array(values)
    return found


def inputs(module, given, binary=None):
    """The tensors in a client's form."""
    made = []
    for name, values in given.items():
        datatype = "BYTES" if values.dtype == object else next(k for k, v in DTYPES.items() if v == values.dtype)
        one = module.InferInput(name, values.shape, datatype)
        one.set_data_from_numpy(values, **({} if binary is None else {"binary_data": binary}))
        made.append(one)
    return made


def click(answer):
    return answer.as_numpy("click").reshape(-1)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_http(server, expected, binary):
    with triton_http.InferenceServerClient(server.http) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("ranker")
        assert client.get_model_metadata("ranker")["inputs"]
        assert client.get_model_config("ranker")["max_batch_size"] == 512
        wanted = [triton_http.InferRequestedOutput(name, binary_data=binary) for name in ("watch", "click")]
        answer = client.infer("ranker", inputs(triton_http, columns(rows(COUNT)), binary), outputs=wanted)
        np.testing.assert_allclose(click(answer), expected[:, 0], atol=1e-6)
        assert client.get_inference_statistics("ranker")["model_stats"][0]["inference_count"] >= COUNT


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_http_compressed(server, expected, algorithm):
    with triton_http.InferenceServerClient(server.http) as client:
        given = inputs(triton_http, columns(rows(COUNT)))
        answer = client.infer("ranker", given, request_compression_algorithm=algorithm)
        np.testing.assert_allclose(click(answer), expected[:, 0], atol=1e-6)


def test_triton_grpc(server, expected):
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("ranker")
        assert client.get_model_config("ranker").config.name == "ranker"
        answer = client.infer("ranker", inputs(triton_grpc, columns(rows(COUNT))), request_id="7")
        np.testing.assert_allclose(click(answer), expected[:, 0], atol=1e-6)
        assert answer.get_response().id == "7"


def test_triton_loads_and_unloads(server):
    with triton_http.InferenceServerClient(server.http) as client:
        client.unload_model("ranker")
        assert not client.is_model_ready("ranker")
        client.load_model("ranker")
        assert client.is_model_ready("ranker")
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        client.load_model("ranker")
        assert client.get_model_repository_index().models[0].state == "READY"


def test_triton_aio(server, expected):
    async def call(module, made, address):
        async with made.InferenceServerClient(address) as client:
            return click(await client.infer("ranker", inputs(module, columns(rows(COUNT)))))

    for module, made, address in (
        (triton_http, triton_http_aio, server.http),
        (triton_grpc, triton_grpc_aio, server.grpc),
    ):
        np.testing.assert_allclose(asyncio.run(call(module, made, address)), expected[:, 0], atol=1e-6)


def test_padded_lists_are_the_same(server, expected):
    given = columns(rows(COUNT))
    lengths = given["liked.lengths"]
    padded = np.full((COUNT, 9), 77)
    padded[np.arange(9)[None, :] < lengths[:, None]] = given["liked"]
    with triton_http.InferenceServerClient(server.http) as client:
        answer = client.infer("ranker", inputs(triton_http, given | {"liked": padded}))
    np.testing.assert_allclose(click(answer), expected[:, 0], atol=1e-6)


OWN = ("item", "item_weight", "price")  # columns of candidates; all others are the user's


def ask(server, form, user, candidates):
    """Clicks of a user's candidates, asked for in one of the forms in which that can be."""
    if form == "json":
        shared, own = user.select(USERS).to_pylist()[0], candidates.select(OWN).to_pylist()
        connection = http.client.HTTPConnection(server.http)
        connection.request("POST", "/predict", json.dumps({"shared": shared, "rows": own}))
        return [row["click"] for row in json.loads(connection.getresponse().read())["predictions"]]
    module, address = (triton_grpc, server.grpc) if form == "grpc" else (triton_http, server.http)
    binary = None if form == "grpc" else form == "binary"
    of_user, own = columns(user), columns(candidates)
    sent = {name: (own if name.split(".")[0] in OWN else of_user)[name] for name in own}
    with module.InferenceServerClient(address) as client:
        return click(client.infer("ranker", inputs(module, sent, binary), parameters={"broadcast": True}))


USERS = ("liked", "tag", "vector", "user", "age")


@pytest.mark.parametrize("form", ["json", "v2_json", "binary", "grpc"])
def test_candidates_of_one_user(server, folder, form):
    """One after the other and several at once, which are scored together: in the order of the candidates."""
    bundle, table = Bundle(folder), rows(40)
    valued = [row for row in range(40) if row % 7 and row % 5 and table["liked"][row].is_valid]
    users, expected = [table.slice(row, 1) for row in valued[:4]], []
    for user in users:
        whole = table.select(OWN)
        for name in USERS:
            whole = whole.append_column(name, user[name].take([0] * len(table)))
        expected.append(bundle.predict(whole)[:, 0])
    np.testing.assert_allclose(ask(server, form, users[0], table), expected[0], atol=1e-6)
    with ThreadPoolExecutor(4) as clients:
        for found, wanted in zip(
            clients.map(lambda user: ask(server, form, user, table), users), expected, strict=True
        ):
            np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_one_row_stands_for_others_only_where_the_request_says_so(server):
    given = columns(rows(2).slice(1)) | {"price": np.arange(20.0)}
    refused = pytest.raises(triton_http.InferenceServerException, match="has 1 rows, 'price' has 20")
    with triton_http.InferenceServerClient(server.http) as client, refused:
        client.infer("ranker", inputs(triton_http, given))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"prise": np.zeros(COUNT)}, "Did you mean 'price'?"),
        ({"price": np.full(COUNT, np.nan)}, "column 'price' is nan"),
        ({"user": np.zeros(COUNT, np.int64)}, "'user' has integers, in training it had text"),
        ({"age": np.array(["a"] * COUNT, object)}, "'age'"),
        ({"age": np.full(COUNT, 0.5)}, "'age'"),
        ({"liked.lengths": np.full(COUNT, 1, np.int32)}, "'liked' has"),
        ({"liked.lengths": np.full(COUNT, -1, np.int32)}, "'liked.lengths' has lengths -1 to -1"),
        ({"item.lengths": np.full(COUNT, 0, np.int32), "item": np.empty(0, np.int64)}, "'item'"),
        ({"item": np.full(47, 500)}, "'item' has"),
        ({"price": np.zeros((COUNT, 2))}, "'price' has shape"),
        ({"vector": np.zeros((COUNT, 2))}, "'vector' has shape"),
        ({"price": np.empty(0)}, "'price' has 0 rows"),
        ({"vector.valid": np.ones(3, bool)}, "'vector.valid' has 3 values"),
    ],
)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_mistakes_name_the_feature(server, protocol, change, text):
    module = {"http": triton_http, "grpc": triton_grpc}[protocol]
    with module.InferenceServerClient(getattr(server, protocol)) as client:
        with pytest.raises(module.InferenceServerException) as refused:
            client.infer("ranker", inputs(module, columns(rows(COUNT)) | change))
        assert text in refused.value.message()
        assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")


def test_no_rows(server):
    given = {name: values[:0] for name, values in columns(rows(COUNT)).items()}
    refused = pytest.raises(triton_http.InferenceServerException, match="the request has no rows")
    with triton_http.InferenceServerClient(server.http) as client, refused:
        client.infer("ranker", inputs(triton_http, given))


TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["user", "age", "price", "liked", "liked.lengths", "vector", "x", ""]),
        "datatype": st.sampled_from([*DTYPES, "BYTES", "", "FP"]),
        "shape": st.lists(st.integers(-2, 2**33), max_size=3),
    },
    optional={
        "data": st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=3), st.none()), max_size=4),
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "other"]),
            st.one_of(st.integers(-5, 50), st.text(max_size=2)),
            max_size=2,
        ),
    },
)


def test_rows_without_elements_take_no_memory_before_they_are_refused(server):
    tensors = [{"name": name, "shape": [2**30, 0], "datatype": "INT64", "data": []} for name in columns(rows(COUNT))]
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.request("POST", "/v2/models/ranker/infer", json.dumps({"inputs": tensors}))
    answer = connection.getresponse()
    text = answer.read().decode()
    assert answer.status == 400, text
    assert "at most 1,048,576 rows without elements" in text
    connection.close()


@settings(max_examples=80)
@given(tensors=st.lists(TENSOR, max_size=5), tail=st.binary(max_size=60), shift=st.integers(-3, 3))
def test_whatever_comes_over_http_is_no_fault_of_the_server(server, tensors, tail, shift):
    header = json.dumps({"inputs": tensors}).encode()
    connection = http.client.HTTPConnection(server.http, timeout=30)
    lengths = {"Inference-Header-Content-Length": str(len(header) + shift)}
    connection.request("POST", "/v2/models/ranker/infer", header + tail, lengths)
    answer = connection.getresponse()
    assert 400 <= answer.status < 500, answer.read()
    connection.close()


@settings(max_examples=150)
@given(
    place=st.integers(0, 7),
    datatype=st.sampled_from([*DTYPES, "BYTES"]),
    shape=st.lists(st.integers(-2, 2**33), min_size=1, max_size=3),
    raw=st.one_of(st.none(), st.binary(max_size=60)),
)
def test_whatever_comes_over_grpc_is_no_fault_of_the_server(server, place, datatype, shape, raw):
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        name = list(columns(rows(COUNT)))[place]
        request = service_pb2.ModelInferRequest(model_name="ranker")
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw is not None:
            request.raw_input_contents.append(raw)
        with pytest.raises(triton_grpc.InferenceServerException) as refused:
            client.infer("ranker", [_Raw(request)])
        assert "INTERNAL" not in str(refused.value.status())


class _Raw:
    """A tensor as tritonclient sends it, but with what a test put into it."""

    def __init__(self, request):
        self._request = request

    def _get_tensor(self):
        return self._request.inputs[0]

    def _get_content(self):
        return self._request.raw_input_contents[0] if self._request.raw_input_contents else None


def test_messages_are_those_of_the_protocol():
    """Field for field: the same bytes in tritonclient's copy of the definitions."""
    for name, ours in MESSAGES.items():
        theirs = getattr(service_pb2, name, None)
        if theirs is None:
            continue
        for field in ours.DESCRIPTOR.fields:
            other = theirs.DESCRIPTOR.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated), field
