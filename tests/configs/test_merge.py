"""Files, includes, overrides and interpolation as one tree; what is wrong with configs themselves is in test_load."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from configs.merge import COMMAND_LINE, escape, read

texts = st.text(st.sampled_from("ab\\${}.:? \n'\"")).filter(lambda text: text != "???")


@given(texts)
def test_an_escaped_text_is_no_interpolation(text: str) -> None:
    assert OmegaConf.to_container(OmegaConf.create({"key": escape(text)}), resolve=True) == {"key": text}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from("abc"), st.integers()), st.dictionaries(st.sampled_from("bcd"), st.integers()))
def test_overrides_lie_above_the_file_and_know_their_origin(
    tmp_path: Path, written: dict[str, int], given_: dict[str, int]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("top:\n  z: 0\n" + "".join(f"  {key}: {value}\n" for key, value in written.items()))
    source = read(path, [f"top.{key}={value}" for key, value in given_.items()])
    assert source.values == {"top": {"z": 0, **written, **given_}}
    assert source.mistakes == []
    for key in written | given_:
        origin = source.origins["top", key]
        assert (origin.file == COMMAND_LINE) == (key in given_)
        assert origin.text == str({**written, **given_}[key])


def test_lists_are_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: [1, 2, 3]\nb: {c: [1]}\n")
    assert read(path, ["a=[4]", "b.c=[]"]).values == {"a": [4], "b": {"c": []}}


def test_what_is_given_last_stands(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("a: 1\nb: [1, 2]\nc: {d: 1}\n")
    path = tmp_path / "c.yaml"
    path.write_text("include: base.yaml\na: ???\n")
    source = read(path, ["b.0=7", "c=[3]"])
    assert source.values == {"a": None, "b": {"0": 7}, "c": [3]}
    assert [mistake.path for mistake in source.mistakes] == [("a",)]
    assert [mistake.path for mistake in read(path, ["a=5", "c.d=???"]).mistakes] == [("c", "d")]


def test_interpolation_sees_the_merged_tree(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("name: base\ndir: runs/${name}\nall: ${nested}\nnested: {x: '${name}'}\n")
    path = tmp_path / "c.yaml"
    path.write_text("include: base.yaml\nname: top\n")
    assert read(path, []).values == {"name": "top", "dir": "runs/top", "all": {"x": "top"}, "nested": {"x": "top"}}


def test_unresolved_values_are_mistakes_at_their_path(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: ${nowhere}\nb: ???\nc: [1, '${a.b.c}']\nd: '${d}'\n")
    source = read(path, [])
    assert [mistake.path for mistake in source.mistakes] == [("a",), ("b",), ("c", "1"), ("d",)]
    assert source.values == {"a": None, "b": None, "c": [1, None], "d": None}


def test_a_value_on_the_command_line_has_no_comments(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("root: data # where it is\n")
    found = {
        "&a b": "&a b",
        "--- a": "--- a",
        "a\nb": "a\nb",
        "exp #2": "exp #2",
        "#w": "#w",
        "1 # x": "1 # x",
        "x#y": "x#y",
        "": None,
        "1e-3": 1e-3,
    }
    for text, value in found.items():
        source = read(path, [f"root={text}"])
        assert (source.values, source.mistakes) == ({"root": value}, [])
    for text in ("[1, 2] # x", "'a' # b", "{a: 1} #"):
        (mistake,) = read(path, [f"root={text}"]).mistakes
        assert "would be dropped as a comment: #" in mistake.message
