"""Health, server metadata, unknown paths."""

import pytest


@pytest.mark.parametrize("what", ["live", "ready"])
def test_health(speaker, what):
    assert speaker.get(f"/v2/health/{what}").status == 200


def test_server_metadata_is_json(speaker):
    reply = speaker.get("/v2")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("application/json")
    assert isinstance(reply.json, dict)


@pytest.mark.parametrize(("key", "kind"), [("name", str), ("version", str), ("extensions", list)])
def test_server_metadata_has(speaker, key, kind):
    assert isinstance(speaker.get("/v2").json[key], kind)


def test_extensions_are_names(speaker):
    assert all(isinstance(name, str) for name in speaker.get("/v2").json["extensions"])


@pytest.mark.parametrize("path", ["/v2/nothing", "/v2/health/nothing", "/v3", "/v2/models/a/b/c/d/e"])
def test_unknown_paths_are_refused(speaker, path):
    assert 400 <= speaker.get(path).status < 500


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2"])
def test_only_get_asks_for_health_and_metadata(speaker, path):
    assert 400 <= speaker.send("DELETE", path).status < 500
