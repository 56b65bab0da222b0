"""The binary tensor extension: tensors as bytes behind the JSON."""

import json

import numpy as np
import pytest

from tests.conformance.speaker import DTYPES, HEADER_LENGTH


@pytest.fixture(autouse=True)
def offered(needs):
    needs("binary_tensor_data")


def outputs_of(reply):
    """name -> values of an answer with binary outputs."""
    found, place = {}, 0
    for one in reply.json["outputs"]:
        size = one["parameters"]["binary_data_size"]
        values = np.frombuffer(reply.binary[place : place + size], DTYPES[one["datatype"]])
        found[one["name"]] = values.reshape(one["shape"])
        place += size
    assert place == len(reply.binary)
    return found


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_binary_inputs_give_what_json_gives(speaker, rows):
    described, tail = speaker.binary_inputs(rows)
    reply = speaker.post_binary({"inputs": described}, tail)
    assert reply.status == 200
    expected = speaker.scores({"inputs": speaker.inputs(rows)})
    for one in reply.json["outputs"]:
        found = np.array(one["data"]) if "data" in one else outputs_of(reply)[one["name"]]
        np.testing.assert_allclose(found.reshape(one["shape"]), expected[one["name"]], rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 3])
def test_all_outputs_as_bytes(speaker, rows):
    described, tail = speaker.binary_inputs(rows)
    reply = speaker.post_binary({"inputs": described, "parameters": {"binary_data_output": True}}, tail)
    expected = speaker.scores({"inputs": speaker.inputs(rows)})
    for name, values in outputs_of(reply).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6)


def test_json_inputs_and_bytes_back(speaker):
    reply = speaker.post({"inputs": speaker.inputs(), "parameters": {"binary_data_output": True}})
    assert reply.status == 200
    assert outputs_of(reply)


def test_bytes_in_and_json_back(speaker):
    described, tail = speaker.binary_inputs()
    wanted = [{"name": one["name"], "parameters": {"binary_data": False}} for one in speaker.metadata["outputs"]]
    reply = speaker.post_binary({"inputs": described, "outputs": wanted}, tail)
    assert all("data" in one for one in reply.json["outputs"])


def test_one_output_as_bytes(speaker):
    name = speaker.metadata["outputs"][0]["name"]
    wanted = [{"name": name, "parameters": {"binary_data": True}}]
    reply = speaker.post({"inputs": speaker.inputs(), "outputs": wanted})
    assert list(outputs_of(reply)) == [name]


def test_bytes_and_json_in_one_request(speaker):
    described, tail = speaker.binary_inputs()
    size = described[0]["parameters"]["binary_data_size"]
    mixed = [speaker.inputs()[0], *described[1:]]
    reply = speaker.post_binary({"inputs": mixed}, tail[size:])
    assert reply.status == 200


def test_the_length_of_the_json_is_in_the_header(speaker):
    described, tail = speaker.binary_inputs()
    reply = speaker.post_binary({"inputs": described, "parameters": {"binary_data_output": True}}, tail)
    length = int(reply.headers[HEADER_LENGTH.lower()])
    assert json.loads(reply.body[:length])["model_name"] == speaker.model


def test_an_answer_in_json_has_no_such_header(speaker):
    assert HEADER_LENGTH.lower() not in speaker.post({"inputs": speaker.inputs()}).headers


def test_the_id_comes_back(speaker):
    described, tail = speaker.binary_inputs()
    reply = speaker.post_binary({"id": "7", "inputs": described, "parameters": {"binary_data_output": True}}, tail)
    assert reply.json["id"] == "7"


def sized(change):
    def make(speaker):
        described, tail = speaker.binary_inputs()
        described[0]["parameters"]["binary_data_size"] = change(described[0]["parameters"]["binary_data_size"])
        return {"inputs": described}, tail, None

    return make


def tailed(change):
    def make(speaker):
        described, tail = speaker.binary_inputs()
        return {"inputs": described}, change(tail), None

    return make


def header_of(length):
    def make(speaker):
        described, tail = speaker.binary_inputs()
        return {"inputs": described}, tail, length

    return make


def data_beside(speaker):
    described, tail = speaker.binary_inputs()
    described[0]["data"] = speaker.inputs()[0]["data"]
    return {"inputs": described}, tail, None


def shape_of_more(speaker):
    described, tail = speaker.binary_inputs()
    described[0]["shape"][0] += 1
    return {"inputs": described}, tail, None


REFUSED = {
    "a size too small": sized(lambda size: size - 1),
    "a size too large": sized(lambda size: size + 1),
    "a size beyond the body": sized(lambda size: 2**40),
    "a negative size": sized(lambda size: -1),
    "a size that is text": sized(lambda size: "many"),
    "bytes cut off": tailed(lambda tail: tail[:-1]),
    "no bytes": tailed(lambda tail: b""),
    "bytes at the end": tailed(lambda tail: tail + b"\0"),
    "a header beyond the body": header_of(10**9),
    "a header in the middle of the JSON": header_of(10),
    "a negative header": header_of(-5),
    "a header that is text": header_of("all"),
    "no room for the JSON": header_of(0),
    "data beside the bytes": data_beside,
    "a shape of more than the bytes": shape_of_more,
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(speaker, what):
    header, tail, length = REFUSED[what](speaker)
    assert 400 <= speaker.post_binary(header, tail, length).status < 500


@pytest.mark.parametrize("tail", [b"\xff\xff\xff\xff", b"\x02\0\0\0a", b"\x01\0\0", b"\0\0\0\x80abc"])
def test_texts_whose_lengths_lie(speaker, tail):
    described, _ = speaker.binary_inputs(1)
    texts = [one for one in described if one["datatype"] == "BYTES"]
    if not texts:
        pytest.skip("the model has no input of BYTES")
    inputs = [one for one in speaker.inputs(1) if one["name"] != texts[0]["name"]]
    texts[0]["parameters"]["binary_data_size"] = len(tail)
    assert 400 <= speaker.post_binary({"inputs": [*inputs, texts[0]]}, tail).status < 500
