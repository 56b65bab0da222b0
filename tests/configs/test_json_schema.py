"""The JSON schema of configs: valid itself, true to the presets, and it knows the choices."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from configs.choices import available
from configs.json_schema import json_schema
from configs.merge import read

SCHEMA = json_schema()
PRESETS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def errors(values: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(values)]


def test_it_is_a_schema_and_json() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_follow_it(path: Path) -> None:
    assert errors(read(path, []).values) == []  # interpolations resolved: editors see a text there


def test_a_file_that_includes_another_may_leave_anything_out() -> None:
    assert errors({"include": "quickstart.yaml", "data": {"lanes": 4}}) == []
    assert errors({"include": "quickstart.yaml", "model": {"options": {"num_levels": 3}}}) == []
    assert errors({"include": "quickstart.yaml", "tasks": {"click": {"reweight": {"by_label": {"cap": 3}}}}}) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trainin": {}}, "trainin"),
        ({"training": {"epoch": 1}}, "epoch"),
        ({"training": {"epochs": 0}}, "0"),
        ({"model": {"top": "mmoo"}}, "mmoo"),
        ({"features": {"user": {"table": "user", "transform": "hsh"}}}, "hsh"),
        ({"tasks": {"click": {"loss": "bcee"}}}, "bcee"),
        ({"data": {"generate": {"kind": "food"}}}, "food"),
        ({"model": {"top": "ple", "options": {"num_level": 3}}}, "num_level"),
        ({"model": {"top": "ple", "options": {"num_levels": 0}}}, "0"),
        ({"model": {"top": "dlrm", "options": {"interaction": "dott"}}}, "dott"),
        ({"model": {"top": "mmoe", "options": {"num_levels": 3}}}, "num_levels"),
        ({"model": {"options": {"num_level": 3}}}, "num_level"),
        ({"tasks": {"click": {"loss": "focal", "options": {"gama": 3}}}}, "gama"),
        ({"tasks": {"click": {"reweight": {"by_label": {"labl": "w"}}}}}, "labl"),
        ({"tasks": {"click": {"reweight": {"by_lable": {"label": "w"}}}}}, "by_lable"),
        ({"training": {"task_balance": "dwa", "task_balance_options": {"temprature": 1}}}, "temprature"),
        ({"features": {"user": {"table": "user", "transform": "hash", "options": {"x": 1}}}}, "x"),
        ({"data": {"generate": {"kind": "feed", "options": {"user": 3}}}}, "user"),
    ],
)
def test_it_finds_mistakes(values: dict[str, Any], words: str) -> None:
    (error,) = errors(values)
    assert words in error


def test_choices_and_descriptions_are_in_it() -> None:
    definitions = SCHEMA["$defs"]
    assert definitions["ModelConfig"]["properties"]["top"]["enum"] == available("models.tops")
    for section in definitions.values():
        assert all("description" in value or "$ref" in value for value in section["properties"].values())
