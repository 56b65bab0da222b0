"""YAML text: scalar values, line numbers, duplicate keys."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.yaml_source import parse

text_16_bits = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]))  # JSON writes others as two
# YAML takes a key of at most 1,024 characters, and JSON writes some characters with six
key_texts = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=100)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text_16_bits,
    lambda inner: st.lists(inner) | st.dictionaries(key_texts.filter(lambda key: key != "<<"), inner),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-2.", -2.0),
        ("-.inf", -math.inf),
        ("1_000_000", 1_000_000),
        ("007", 7),
        ("0x1F", 31),
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("true", True),
        ("null", None),
        ("", None),
        ("~", None),
        ("2022-05-04", "2022-05-04"),
        ("12:30", "12:30"),
        ("'1'", "1"),
        ('"null"', "null"),
        ("1__0", "1__0"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    parsed = parse(f"key: {text}", "f").values["key"]
    assert (parsed, type(parsed)) == (value, type(value))


@given(json_like)
def test_reads_json(value: object) -> None:
    """JSON is YAML with every text in quotes."""
    source = parse(json.dumps({"key": value}).replace("Infinity", ".inf"), "f")
    assert source.values == {"key": value}
    assert not source.mistakes


def test_origins_name_file_and_line() -> None:
    source = parse("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", "f.yaml")
    lines = {".".join(path): origin.line for path, origin in source.origins.items()}
    assert lines == {"": 1, "a": 1, "a.b": 2, "a.c": 3, "a.c.0": 4, "a.c.1": 5, "a.c.1.d": 5}
    assert str(source.origins["a", "b"]) == "f.yaml:2"
    assert source.origins["a", "b"].text == "1"


def test_every_duplicate_key_is_named_with_both_lines() -> None:
    source = parse("a: 1\nb: {c: 1, c: 2}\na: 2\n", "f")
    assert [(m.path, m.message) for m in source.mistakes] == [
        (("b", "c"), "the key is there twice, in lines 2 and 2; remove one"),
        (("a",), "the key is there twice, in lines 1 and 3; remove one"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1, 2\n", 3, "not valid YAML"),
        ("a:\n\tb: 1\n", 2, "cannot start any token"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: \x01", None, "not valid YAML"),
        ("a: !!python/name:os.system x", 1, "tags"),
        ("a: 1\n? [x, y]\n: 2", 2, "key must be text"),
        ("a: &x\n  b: *x", 1, "contains itself"),
    ],
)
def test_bad_text_is_a_mistake_with_its_line(text: str, line: int | None, words: str) -> None:
    (mistake,) = parse(text, "f").mistakes
    assert words in mistake.message
    assert mistake.origin is not None
    assert mistake.origin.line == line


def test_keys_stay_text_and_anchors_merge() -> None:
    source = parse("1: a\nno: b\nx: &x {p: 1, q: 2}\ny: {q: 3, <<: *x}\n", "f")
    assert source.values == {"1": "a", "no": "b", "x": {"p": 1, "q": 2}, "y": {"p": 1, "q": 3}}
