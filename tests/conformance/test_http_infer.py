"""Requests that must be answered, and what the answer must say."""

import http.client
import json
import socket

import numpy as np
import pytest

from tests.conformance.speaker import shape_of


def test_content_type(speaker):
    assert speaker.post({"inputs": speaker.inputs()}).headers["content-type"].startswith("application/json")


def test_the_answer_names_the_model(speaker):
    assert speaker.post({"inputs": speaker.inputs()}).json["model_name"] == speaker.model


def test_the_answer_names_a_version_of_the_model(speaker):
    answer = speaker.post({"inputs": speaker.inputs()}).json
    assert isinstance(answer.get("model_version", ""), str)
    assert not answer.get("model_version") or answer["model_version"] in speaker.metadata["versions"]


@pytest.mark.parametrize("name", ["42", "", "a b/c", "é", "x" * 200])
def test_the_id_comes_back(speaker, name):
    assert speaker.post({"id": name, "inputs": speaker.inputs()}).json.get("id", "") == name


def test_all_outputs_come_back(speaker):
    found = [one["name"] for one in speaker.post({"inputs": speaker.inputs()}).json["outputs"]]
    assert sorted(found) == sorted(one["name"] for one in speaker.metadata["outputs"])


def test_outputs_have_the_datatypes_of_the_metadata(speaker):
    wanted = {one["name"]: one["datatype"] for one in speaker.metadata["outputs"]}
    for one in speaker.post({"inputs": speaker.inputs()}).json["outputs"]:
        assert one["datatype"] == wanted[one["name"]]


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
def test_outputs_have_a_row_for_each_of_the_inputs(speaker, rows):
    wanted = {one["name"]: shape_of(one, rows) for one in speaker.metadata["outputs"]}
    for one in speaker.post({"inputs": speaker.inputs(rows)}).json["outputs"]:
        assert one["shape"] == wanted[one["name"]]
        assert np.array(one["data"]).size == np.prod(one["shape"])


def test_the_same_request_gets_the_same_answer(speaker):
    first, second = (speaker.scores({"inputs": speaker.inputs(3)}) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_rows_do_not_depend_on_each_other(speaker):
    both = speaker.scores({"inputs": speaker.inputs(2)})
    inputs = speaker.inputs(2)
    for one in inputs:
        width = len(one["data"]) // 2
        one["data"], one["shape"] = one["data"][width:], [1, *one["shape"][1:]]
    for name, values in speaker.scores({"inputs": inputs}).items():
        np.testing.assert_allclose(values[0], both[name][1], rtol=1e-5, atol=1e-6)


def test_the_order_of_inputs_does_not_matter(speaker):
    straight = speaker.scores({"inputs": speaker.inputs()})
    for name, values in speaker.scores({"inputs": speaker.inputs()[::-1]}).items():
        np.testing.assert_array_equal(values, straight[name])


def test_nested_data_are_the_same_as_flat(speaker):
    flat, inputs = speaker.scores({"inputs": speaker.inputs()}), speaker.inputs()
    for one in inputs:
        one["data"] = np.array(one["data"], dtype=object).reshape(one["shape"]).tolist()
    for name, values in speaker.scores({"inputs": inputs}).items():
        np.testing.assert_array_equal(values, flat[name])


def test_a_version_is_asked_for_by_its_path(speaker):
    versions = speaker.metadata.get("versions")
    if not versions:
        pytest.skip("the model has no versions")
    path = f"{speaker.path}/versions/{versions[-1]}/infer"
    assert speaker.post({"inputs": speaker.inputs()}, path).status == 200


def test_a_chosen_output_comes_alone(speaker):
    name = speaker.metadata["outputs"][-1]["name"]
    answer = speaker.post({"inputs": speaker.inputs(), "outputs": [{"name": name}]}).json
    assert [one["name"] for one in answer["outputs"]] == [name]


def test_all_outputs_by_name(speaker):
    names = [one["name"] for one in speaker.metadata["outputs"]]
    answer = speaker.post({"inputs": speaker.inputs(), "outputs": [{"name": name} for name in names]}).json
    assert sorted(one["name"] for one in answer["outputs"]) == sorted(names)


@pytest.mark.parametrize("parameters", [{}, {"unheard_of": 1}, {"unheard_of": "text", "another": True}])
def test_parameters_that_mean_nothing_here(speaker, parameters):
    assert speaker.post({"inputs": speaker.inputs(), "parameters": parameters}).status == 200


def test_parameters_of_inputs(speaker):
    inputs = speaker.inputs()
    inputs[0]["parameters"] = {}
    assert speaker.post({"inputs": inputs}).status == 200


def test_empty_list_of_outputs(speaker):
    assert speaker.post({"inputs": speaker.inputs(), "outputs": []}).status == 200


def test_white_space_in_the_json(speaker):
    body = json.dumps({"inputs": speaker.inputs()}, indent=4).encode()
    assert speaker.post(b"\n  " + body + b"\r\n").status == 200


def test_no_content_type(speaker):
    body = json.dumps({"inputs": speaker.inputs()}).encode()
    assert speaker.send("POST", speaker.path + "/infer", body).status == 200


def test_a_body_in_chunks(speaker):
    body = json.dumps({"inputs": speaker.inputs()}).encode()
    parts = iter([body[:10], body[10:11], body[11:]])
    connection = http.client.HTTPConnection(speaker.address, timeout=30)
    connection.request(
        "POST", speaker.path + "/infer", parts, encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    assert connection.getresponse().status == 200


def test_many_requests_on_one_connection(speaker):
    connection = http.client.HTTPConnection(speaker.address, timeout=30)
    for rows in (1, 3, 2):
        connection.request("POST", speaker.path + "/infer", json.dumps({"inputs": speaker.inputs(rows)}))
        answer = connection.getresponse()
        assert json.loads(answer.read())["outputs"][0]["shape"][0] == rows


def test_requests_one_behind_the_other(speaker):
    body = json.dumps({"inputs": speaker.inputs(1)}).encode()
    head = f"POST {speaker.path}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode()
    host, port = speaker.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(head + b"\r\n" + body + head + b"Connection: close\r\n\r\n" + body)
        answers = b""
        while part := client.recv(1 << 16):
            answers += part
    assert answers.count(b"HTTP/1.1 200") == 2


def test_a_body_that_waits_to_be_asked_for(speaker):
    body = json.dumps({"inputs": speaker.inputs(1)}).encode()
    head = (
        f"POST {speaker.path}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    host, port = speaker.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(head.encode())
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 100")
        client.sendall(body)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
