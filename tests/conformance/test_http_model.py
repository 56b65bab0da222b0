"""A model's readiness, metadata and versions."""

import pytest

from tests.conformance.speaker import DTYPES


def version_path(speaker, version=None):
    versions = speaker.metadata.get("versions")
    if version is None and not versions:
        pytest.skip("the model has no versions")
    return f"{speaker.path}/versions/{version or versions[-1]}"


def test_ready(speaker):
    assert speaker.get(speaker.path + "/ready").status == 200


def test_ready_of_a_version(speaker):
    assert speaker.get(version_path(speaker) + "/ready").status == 200


@pytest.mark.parametrize("part", ["", "/ready"])
def test_unknown_models_are_refused(speaker, part):
    assert 400 <= speaker.get("/v2/models/no_such_model_anywhere" + part).status < 500


@pytest.mark.parametrize("part", ["", "/ready"])
def test_unknown_versions_are_refused(speaker, part):
    assert 400 <= speaker.get(version_path(speaker, "987654321") + part).status < 500


def test_the_error_of_an_unknown_model(speaker):
    assert isinstance(speaker.get("/v2/models/no_such_model_anywhere").json["error"], str)


def test_metadata_is_json(speaker):
    assert speaker.get(speaker.path).headers["content-type"].startswith("application/json")


def test_metadata_names_the_model(speaker):
    assert speaker.metadata["name"] == speaker.model


def test_metadata_has_a_platform(speaker):
    assert isinstance(speaker.metadata["platform"], str)


def test_versions_are_text(speaker):
    assert all(isinstance(version, str) for version in speaker.metadata.get("versions", []))


def test_metadata_of_a_version(speaker):
    found = speaker.get(version_path(speaker)).json
    assert (found["name"], found["inputs"]) == (speaker.model, speaker.metadata["inputs"])


@pytest.mark.parametrize("side", ["inputs", "outputs"])
class TestTensors:
    """What metadata say of inputs and of outputs."""

    def test_there_are_some(self, speaker, side):
        assert speaker.metadata[side]

    def test_names_differ(self, speaker, side):
        names = [one["name"] for one in speaker.metadata[side]]
        assert all(isinstance(name, str) and name for name in names)
        assert len(set(names)) == len(names)

    def test_datatypes_are_of_the_protocol(self, speaker, side):
        assert {one["datatype"] for one in speaker.metadata[side]} <= {*DTYPES, "BYTES", "BF16"}

    def test_shapes_are_sizes_or_free(self, speaker, side):
        for one in speaker.metadata[side]:
            assert all(isinstance(size, int) and size >= -1 for size in one["shape"])
