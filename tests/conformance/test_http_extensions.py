"""Triton's extensions over HTTP: model configuration, statistics, model repository."""

import pytest


@pytest.fixture
def config(speaker, needs):
    needs("model_configuration")
    return speaker.get(speaker.path + "/config").json


def statistics(speaker):
    found = speaker.get(speaker.path + "/stats").json["model_stats"]
    return next(one for one in found if one["name"] == speaker.model)


def test_the_configuration_names_the_model(speaker, config):
    assert config["name"] == speaker.model


def test_the_configuration_says_how_large_batches_may_be(config):
    assert isinstance(config["max_batch_size"], int)


@pytest.mark.parametrize(("side", "key"), [("inputs", "input"), ("outputs", "output")])
def test_the_configuration_has_the_tensors_of_the_metadata(speaker, config, side, key):
    assert {one["name"] for one in speaker.metadata[side]} <= {one["name"] for one in config[key]}


def test_the_configuration_has_types_and_dims(config):
    for one in config["input"] + config["output"]:
        assert one["data_type"].startswith("TYPE_")
        assert all(isinstance(int(size), int) for size in one["dims"])


@pytest.mark.parametrize("key", ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output"])
def test_statistics_have(speaker, needs, key):
    needs("statistics")
    found = statistics(speaker)["inference_stats"][key]
    assert int(found["count"]) >= 0
    assert int(found["ns"]) >= 0


@pytest.mark.parametrize(("key", "step"), [("inference_count", 3), ("execution_count", 1)])
def test_statistics_count(speaker, needs, key, step):
    needs("statistics")
    before = int(statistics(speaker)[key])
    speaker.post({"inputs": speaker.inputs(3)})
    assert int(statistics(speaker)[key]) == before + step


def test_statistics_count_requests(speaker, needs):
    needs("statistics")
    before = int(statistics(speaker)["inference_stats"]["success"]["count"])
    speaker.post({"inputs": speaker.inputs(3)})
    assert int(statistics(speaker)["inference_stats"]["success"]["count"]) == before + 1


def test_statistics_of_all_models(speaker, needs):
    needs("statistics")
    assert speaker.model in {one["name"] for one in speaker.get("/v2/models/stats").json["model_stats"]}


def test_the_repository_lists_the_model(speaker, needs):
    needs("model_repository")
    reply = speaker.post({}, "/v2/repository/index")
    assert reply.status == 200
    assert speaker.model in {one["name"] for one in reply.json}
