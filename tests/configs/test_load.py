"""Loading, merging, overriding and dumping configs, and what their mistakes look like."""

import contextlib
import copy
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import UserError
from configs.load import describes_run, dump_config, load_config, load_section
from configs.merge import read
from configs.schema import Config
from configs.serve_config import ServeConfig

ROOT = Path(__file__).parents[2]

SMALL = """\
data: {root: data/x, global_batch_size: 8, lanes: 2}
features:
  user: {table: user}
  age: {}
tables:
  user: {num_embeddings: 10, embedding_dim: 4}
tasks:
  click: {}
training:
  run_dir: runs/x
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "small.yaml", SMALL)


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def mistakes(path: Path, *overrides: str) -> list[str]:
    """The lines of the error, without the folder; the header and the advice are left out."""
    with pytest.raises(UserError) as error:
        load_config(path, overrides)
    first, *others = str(error.value).splitlines()
    lines = [first] if others[-1].startswith("Correct") else others
    return [line.strip().replace(f"{path.parent}/", "") for line in lines]


def test_loads_sections_with_defaults(small: Path) -> None:
    config = load_config(small)
    assert config.features["user"] == config.sparse_features["user"]
    assert config.data.shuffle_window == 16_384
    assert config.training.run_dir == "runs/x"


def test_overrides_win_and_reach_every_depth(small: Path) -> None:
    config = load_config(
        small,
        [
            "tables.user.num_embeddings=1_000",
            "training.dense_optimizer.learning_rate=1e-4",
            "model.tower_layers=[8, 4]",
            "features.item.table=user",
            "data.weight_column=no",
            "training.run_dir=20250101",
            "tasks.like={weight: 2}",
        ],
    )
    assert config.tables["user"].num_embeddings == 1000
    assert config.training.dense_optimizer.learning_rate == 1e-4
    assert config.model.tower_layers == (8, 4)
    assert list(config.sparse_features) == ["user", "item"]
    assert config.data.weight_column == "no"
    assert config.training.run_dir == "20250101"
    assert config.tasks["like"].weight == 2


def test_a_number_in_a_list_of_names_is_a_name() -> None:
    with pytest.raises(UserError, match=r"tower_features: 7 is no feature"):
        load_config(ROOT / "configs/quickstart.yaml", ["tasks.like.tower_features=[7]"])


def test_text_fields_keep_numbers_as_they_were_written(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", SMALL + "model: {top: mmoe}\n")
    config = load_config(path, ["data.train=0123", "data.validation=1e-3", "features.age.column=true"])
    assert (config.data.train, config.data.validation) == ("0123", "1e-3")
    assert config.features["age"].column == "true"


def test_include_lies_below_the_file_and_overrides_above(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", SMALL)
    write(tmp_path / "more.yaml", "data: {lanes: 4}\ntraining: {epochs: 5}\n")
    path = write(tmp_path / "top.yaml", "include: [base.yaml, more.yaml]\ntraining: {epochs: 6, seed: 1}\ntables:\n")
    config = load_config(path, ["training.seed=2"])
    assert (config.data.lanes, config.training.epochs, config.training.seed) == (4, 6, 2)
    assert list(config.tables) == ["user"]


def test_mistakes_in_an_include_name_that_file(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", SMALL.replace("lanes: 2", "lanes: x"))
    path = write(tmp_path / "top.yaml", "include: base.yaml\ntraining: {epoch: 6}\n")
    assert mistakes(path) == [
        "base.yaml:1: data.lanes = x: must be a valid integer, unable to parse string as an integer",
        "top.yaml:2: training.epoch = 6: unknown key; did you mean epochs?",
    ]


def test_includes_that_cannot_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", SMALL + "include: [b.yaml, none.yaml, empty.yaml]\n")
    write(tmp_path / "b.yaml", "include: a.yaml\n")
    write(tmp_path / "empty.yaml", "")
    lines = mistakes(path)
    assert [line.split(": ", 1)[0] for line in lines] == ["a.yaml:11", "a.yaml:11", "b.yaml:1"]
    assert "none.yaml: there is no such file" in lines[0]
    assert "empty.yaml: is empty" in lines[1]
    assert "a.yaml includes itself" in lines[2]


def test_all_mistakes_are_reported_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bad.yaml",
        """\
        data:
          root: ???
          lanes: 10
          lanes: 12
          global_batch_sise: 33
        features:
          a: {tabel: user, transform: hash}
          b: {table: usr, width: 3}
          click: {}
        tables:
          user: {num_embeddings: -3, embedding_dim: 7}
        tasks:
          click: {loss: bcee, output: sigmiod}
          like: 3
        training:
          epochs: true
          decay: ${
          compile: no
          clip_gradient_norm: off
          data.root: x
        """,
    )
    assert mistakes(path, "launch.workers=0", "nonsense", "trainin.seed=3") == [
        "bad.yaml:2: data.root: stands for a value that you must give: data.root=...",
        "bad.yaml:4: data.lanes = 10: the key is there twice, in lines 3 and 4; remove one",
        "bad.yaml:5: data.global_batch_sise = 33: unknown key; did you mean global_batch_size?",
        "bad.yaml:7: features.a.transform = hash: is none of none, log1p, standardize; hash needs a `table`",
        "bad.yaml:7: features.a.tabel = user: unknown key; did you mean table?",
        "bad.yaml:8: features.b.width = 3: is for features without a `table`",
        "bad.yaml:8: features.b.table = usr: there is no such table; did you mean user?",
        "bad.yaml:9: tasks.click.label: label leak: column click is an input too; remove features.click",
        "bad.yaml:11: tables.user.num_embeddings = -3: must be greater than 0",
        "bad.yaml:11: tables.user.embedding_dim = 7: must be a multiple of 4",
        "bad.yaml:13: tasks.click.output = sigmiod: is none of auto, sigmoid, identity; did you mean sigmoid?",
        "bad.yaml:13: tasks.click.loss = bcee: is not in models/losses; did you mean bce?",
        "bad.yaml:14: tasks.like = 3: must hold keys and values",
        "bad.yaml:15: training.run_dir: is missing",
        "bad.yaml:16: training.epochs = true: must be a valid integer, unable to parse string as an integer",
        "bad.yaml:17: training.decay: '${' is no interpolation: write ${section.key}, or \\${ for plain text",
        "bad.yaml:19: training.clip_gradient_norm = off: must be a valid number, unable to parse string as a number",
        "bad.yaml:20: training.data.root = x: unknown key: in a file, dots become nested keys (a.b: 1 is a: {b: 1})",
        "command line: 'nonsense' is no override: write section.key=value",
        "command line: launch.workers = 0: must be greater than 0",
        "command line: trainin: unknown key; did you mean training?",
    ]


def test_a_value_that_is_wrong_itself_causes_no_further_mistakes(small: Path) -> None:
    assert len(mistakes(small, "data.lanes=7x", "launch.workers=50")) == 1
    assert len(mistakes(small, "tables.user.num_embedings=5")) == 1
    assert len(mistakes(small, "features.user.tabel=user")) == 1


def test_a_missing_section_is_one_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", SMALL.replace("tasks:\n  click: {}\n", ""))
    assert mistakes(path) == ["c.yaml:1: tasks: is missing"]


def test_interpolation(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", SMALL + "  seed: 3\nmodel: {top: ple}\n")
    config = load_config(path, ["training.run_dir=runs/${model.top}", "data.generate={seed: '${training.seed}'}"])
    assert config.training.run_dir == "runs/ple"
    assert config.data.generate is not None
    assert config.data.generate.seed == 3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.run_dir=${model.tip}", "command line: training.run_dir: cannot be resolved"),
        ("training.run_dir=${training.run_dir}", "command line: training.run_dir: cannot be resolved"),
        ("training.run_dir=${a", "is no interpolation"),
        ("data.root=[1", "command line: data.root: not valid YAML"),
        ("=3", "is no override"),
        ("data.=3", "is no override"),
        ("features.user.x.y=3", "unknown key"),
        ("features.user=3", "must hold keys and values"),
        ("model.expert_layers.0=3", "model.expert_layers"),
        ("include=x.yaml", "include = x.yaml: unknown key"),
    ],
)
def test_wrong_overrides(small: Path, override: str, words: str) -> None:
    (line,) = mistakes(small, override)
    assert words in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"- a\n- b\n", "does not hold keys and values"),
        (b"data: [\n", "c.yaml:2: not valid YAML"),
        (b"data: \xff\xfe", "cannot be read"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_config(path)


def test_a_missing_file_suggests_another(small: Path) -> None:
    with pytest.raises(UserError, match=r"smal.yaml: there is no such file; did you mean .*small.yaml\?"):
        load_config(small.parent / "smal.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        load_config(small.parent)


names = st.from_regex(r"[a-z_][a-z0-9_-]{0,8}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
options = st.dictionaries(
    texts.filter(lambda key: key != "<<"),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts.filter(lambda t: t != "???"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Every section is valid, and none contradicts another. Options are anything: no choice is asked about them."""
    tables = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    lanes = draw(st.integers(1, 64))
    values: dict[str, Any] = {
        "data": {"root": "d/" + draw(texts), "lanes": lanes, "global_batch_size": lanes * draw(st.integers(1, 99))},
        "features": {
            f"f{i}": {"table": table, "column": f"f{i}{draw(texts)}", "options": draw(options)}
            for i, table in enumerate(tables)
        },
        "tables": {
            name: {"num_embeddings": draw(st.integers(1, 10**12)), "embedding_dim": 4 * draw(st.integers(1, 64))}
            for name in tables
        },
        "model": {"expert_layers": draw(st.lists(st.integers(1, 999), min_size=1)), "options": draw(options)},
        "tasks": {
            name: {"label": "label" + draw(texts), "weight": draw(st.floats(1e-9, 1e9)), "options": draw(options)}
            for name in draw(st.sets(names, min_size=1, max_size=3))
        },
        "training": {"run_dir": "runs/" + draw(texts), "dense_optimizer": {"eps": draw(st.floats(1e-300, 1))}},
    }
    return Config.model_validate(values)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(config=configs())
def test_a_dumped_config_is_read_as_an_equal_one(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "dumped.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    source = read(path, ())
    assert not source.mistakes
    assert Config.model_validate(source.values) == config


def paths(values: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    below = [path for key in values for path in paths(values[key], (*prefix, key))] if isinstance(values, dict) else []
    return [prefix, *below] if prefix else below


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats()
    | st.sampled_from(["", "x", "1e3", "???", "${a}", "${"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["table", "x", "1"]), inner, max_size=2)
    ),
    max_leaves=4,
)
FULL = Config.model_validate(yaml.safe_load(SMALL)).model_dump(mode="json")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(paths(FULL)), anything), min_size=1, max_size=4))
def test_any_wrong_value_is_a_user_error(tmp_path: Path, changes: list[tuple[tuple[str, ...], Any]]) -> None:
    values = copy.deepcopy(FULL)
    for path, value in changes:
        section = values
        for key in path[:-1]:
            section = section[key] if isinstance(section.get(key), dict) else {}
        section[path[-1]] = value
    path = write(tmp_path / "wrong.yaml", yaml.safe_dump(values))
    with contextlib.suppress(UserError):
        assert isinstance(load_config(path), Config)


def test_a_dump_is_read_alike_by_other_yaml_readers(small: Path) -> None:
    config = load_config(small, ["data.train=no", "data.validation=1e-3", "training.run_dir=2025-01-01"])
    text = dump_config(config)
    assert "train: 'no'" in text
    assert 'validation: "1e-3"' in text
    assert "run_dir: '2025-01-01'" in text


def test_loading_imports_nothing_heavy_and_takes_under_a_second() -> None:
    program = """
        import sys, time
        start = time.process_time()
        from configs.load import load_config, dump_config
        dump_config(load_config("configs/quickstart.yaml", ["launch.workers=1"]))
        assert time.process_time() - start < 1, time.process_time() - start
        heavy = {"torch", "torchrec", "ray", "numpy", "pyarrow", "fbgemm_gpu", "pandas", "tensorboard"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_load_and_are_short(path: Path) -> None:
    config = load_config(path)
    assert config.training.run_dir.endswith(f"runs/{path.stem}")
    assert len(path.read_text().splitlines()) <= 90


def test_a_section_alone_has_all_its_mistakes_named() -> None:
    section = load_section("serve", ServeConfig, ["serve.request_log=/logs", "serve.processes=2"])
    assert (section.request_log, section.processes) == ("/logs", 2)
    with pytest.raises(UserError) as error:
        load_section("serve", ServeConfig, ["serve.tokn=3", "serve.max_body_mib=much"])
    head, first, second = str(error.value).splitlines()
    assert head == "command line: 2 mistakes; nothing was started. Correct these:"
    assert "serve.max_body_mib = much: must be" in first
    assert "serve.tokn = 3: unknown key" in second


def test_a_file_needs_only_the_section_that_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "serve.yaml", "serve: {port: 3, name: 2024}\n")
    section = load_section("serve", ServeConfig, ["serve.grpc_port=4"], file)
    assert (section.port, section.grpc_port, section.name) == (3, 4, "2024")
    unfinished = write(tmp_path / "run.yaml", "data:\n  root: ???\n  shufle: 3\nserve: {port: 5}\n")
    assert load_section("serve", ServeConfig, [], unfinished).port == 5
    assert (describes_run(file), describes_run(unfinished)) == (False, True)


def test_mistakes_of_a_file_s_section_have_file_and_line(tmp_path: Path) -> None:
    file = write(tmp_path / "serve.yaml", "serve:\n  prt: 3\n  processes: many\nsreve: {}\n")
    with pytest.raises(UserError) as error:
        load_section("serve", ServeConfig, [], file)
    head, *lines = (line.strip() for line in str(error.value).splitlines())
    assert head == f"{file}: 3 mistakes; nothing was started. Correct these:"
    assert lines[0] == f"{file}:2: serve.prt = 3: unknown key; did you mean port?"
    assert lines[1].startswith(f"{file}:3: serve.processes = many: must be a valid integer")
    assert lines[2] == f"{file}:4: sreve: unknown key; did you mean serve?"


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_before_anybody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for read_it in (load_config, lambda path: load_section("serve", ServeConfig, [], path)):
        with pytest.raises(UserError, match=r"pipe\.yaml is a pipe, not a file\nGive a file"):
            read_it(tmp_path / "pipe.yaml")
    including = write(tmp_path / "run.yaml", "include: pipe.yaml\n")
    assert any("include" in line and "is a pipe" in line for line in mistakes(including))


def test_what_the_shell_opens_for_a_command_is_read() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as given:
        given.write("serve: {port: 3}\n")
    assert load_section("serve", ServeConfig, [], Path(f"/dev/fd/{reader}")).port == 3
    os.close(reader)
