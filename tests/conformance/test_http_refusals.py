"""Requests that must be refused: with 4xx, and with an error that is JSON."""

import json

import pytest


def number_input(inputs):
    return next((one for one in inputs if one["datatype"] not in ("BYTES", "BOOL")), inputs[0])


def changed(**keys):
    """The first input with other keys; None takes one away."""

    def change(speaker):
        inputs = speaker.inputs()
        for key, value in keys.items():
            inputs[0].pop(key)
            if value is not None:
                inputs[0][key] = value
        return {"inputs": inputs}

    return change


def data_changed(change_data):
    def change(speaker):
        inputs = speaker.inputs()
        one = number_input(inputs)
        one["data"] = change_data(list(one["data"]))
        return {"inputs": inputs}

    return change


def rows_differ(speaker):
    inputs = speaker.inputs(2)
    if len(inputs) == 1:
        pytest.skip("the model has one input")
    inputs[0] = speaker.inputs(3)[0]
    return {"inputs": inputs}


def wrong_datatype(speaker):
    inputs = speaker.inputs()
    one = number_input(inputs)
    wrong, value = ("BYTES", "a") if one["datatype"] != "BYTES" else ("INT64", 1)
    one["datatype"], one["data"] = wrong, [value] * len(one["data"])
    return {"inputs": inputs}


def without_one(speaker):
    return {"inputs": speaker.inputs()[1:]}


def with_unknown(speaker):
    return {
        "inputs": [*speaker.inputs(), {"name": "no such input", "datatype": "FP32", "shape": [2, 1], "data": [1, 2]}]
    }


def twice(speaker):
    return {"inputs": [*speaker.inputs(), speaker.inputs()[0]]}


def wanted(outputs):
    return lambda speaker: {"inputs": speaker.inputs(), "outputs": outputs}


def extra_dimension(speaker):
    inputs = speaker.inputs()
    inputs[0]["shape"] = [*inputs[0]["shape"], 1, 1]
    return {"inputs": inputs}


BODIES = {
    "no body": lambda speaker: b"",
    "no JSON": lambda speaker: b"{nothing",
    "cut off": lambda speaker: json.dumps({"inputs": speaker.inputs()}).encode()[:-3],
    "garbage": lambda speaker: bytes(range(256)),
    "not UTF-8": lambda speaker: b'{"inputs": "\xff\xfe"}',
    "deep": lambda speaker: b"[" * 100_000,
    "a list": lambda speaker: [],
    "text": lambda speaker: "inputs",
    "a number": lambda speaker: 7,
    "null": lambda speaker: None,
    "no inputs": lambda speaker: {},
    "empty inputs": lambda speaker: {"inputs": []},
    "inputs that are an object": lambda speaker: {"inputs": {"name": "x"}},
    "inputs that are numbers": lambda speaker: {"inputs": [1, 2]},
    "an input without a name": changed(name=None),
    "an input without a shape": changed(shape=None),
    "an input without a datatype": changed(datatype=None),
    "an input without data": changed(data=None),
    "a name that is a number": changed(name=7),
    "an unknown datatype": changed(datatype="INT63"),
    "a datatype in small letters": changed(datatype="int64"),
    "a shape that is text": changed(shape="2"),
    "a size that is text": changed(shape=["2", 1]),
    "a size that is a fraction": changed(shape=[2.5, 1]),
    "a negative size": changed(shape=[-2, 1]),
    "a shape beyond the data": changed(shape=[2**40, 1]),
    "a shape whose product overflows": changed(shape=[2**32, 2**32]),
    "no data for its shape": changed(data=[]),
    "data that are an object": changed(data={"a": 1}),
    "too few data": data_changed(lambda data: data[:-1]),
    "too many data": data_changed(lambda data: [*data, data[-1]]),
    "text among numbers": data_changed(lambda data: ["a", *data[1:]]),
    "an object among numbers": data_changed(lambda data: [{}, *data[1:]]),
    "lists of unequal depth": data_changed(lambda data: [[[data[0]]], *data[1:]]),
    "a number outside its datatype": data_changed(lambda data: [10**40, *data[1:]]),
    "one dimension too many": extra_dimension,
    "another datatype": wrong_datatype,
    "an input that is missing": without_one,
    "an input that nobody knows": with_unknown,
    "an input that is there twice": twice,
    "unequal numbers of rows": rows_differ,
    "an output that nobody knows": lambda speaker: {
        "inputs": speaker.inputs(),
        "outputs": [{"name": "no such output"}],
    },
    "an output without a name": lambda speaker: {"inputs": speaker.inputs(), "outputs": [{}]},
    "outputs that are text": lambda speaker: {"inputs": speaker.inputs(), "outputs": "all"},
}


@pytest.mark.parametrize("what", BODIES)
def test_refused(speaker, what):
    assert 400 <= speaker.post(BODIES[what](speaker)).status < 500


@pytest.mark.parametrize("what", BODIES)
def test_the_error_is_json(speaker, what):
    reply = speaker.post(BODIES[what](speaker))
    assert reply.status >= 400
    assert isinstance(reply.json["error"], str)
    assert reply.json["error"]


@pytest.mark.parametrize("path", ["/v2/models/no_such_model_anywhere/infer", "{path}/versions/987654321/infer"])
def test_unknown_models_and_versions(speaker, path):
    reply = speaker.post({"inputs": speaker.inputs()}, path.format(path=speaker.path))
    assert 400 <= reply.status < 500
    assert isinstance(reply.json["error"], str)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_post_infers(speaker, method):
    assert 400 <= speaker.send(method, speaker.path + "/infer").status < 500


def test_the_server_answers_as_before(speaker):
    before = speaker.scores({"inputs": speaker.inputs()})
    for make in BODIES.values():
        speaker.post(make(speaker))
    for name, values in speaker.scores({"inputs": speaker.inputs()}).items():
        assert (values == before[name]).all()
