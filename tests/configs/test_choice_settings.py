"""Settings that a choice brings along: read without torch, refused by name, the same whoever reads them."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from configs.choice_settings import ChoiceSettings, settings_of, settings_type
from configs.choices import PACKAGES, available, settings
from configs.errors import UserError
from configs.load import load_config

PRESETS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
PRESET = str(PRESETS[0].parent / "quickstart.yaml")
CHOICES = [(package, choice) for package in PACKAGES.values() for choice in available(package)]


def test_checking_any_preset_imports_nothing_heavy() -> None:
    program = """
import sys
from configs.load import load_config
for path in sys.argv[1:]:
    load_config(path, ["training.task_balance=dwa", "training.task_balance_options.temperature=3"])
print(*(set(sys.modules) & {"torch", "torchrec", "ray", "pyarrow", "numpy", "models", "trainer", "embeddings"}))
"""
    command = [sys.executable, "-c", program, *map(str, PRESETS)]
    done = subprocess.run(command, cwd=PRESETS[0].parents[1], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize(("package", "choice"), CHOICES)
def test_what_is_read_is_what_the_module_has(package: str, choice: str) -> None:
    kind = getattr(importlib.import_module(f"{package}.{choice}"), "Settings", ChoiceSettings)
    read = settings_type(package, choice)
    assert read.model_json_schema() == kind.model_json_schema()
    assert all(len(field.description or "") > 10 for field in read.model_fields.values())


MISTAKES = [
    ("model.options.num_expert=8", "model.options.num_expert = 8: unknown key; did you mean model.num_experts?"),
    ("features.user_id.options.x=1", "features.user_id.options.x = 1: unknown key; hash has no settings"),
    ("features.user_id.options.max_lenght=1", "unknown key; did you mean features.user_id.max_length?"),
    ("tasks.like.options.gama=3", "unknown key; bce has none like it, did you mean gamma of focal?"),
    ("tasks.like.options.gamma=3", "tasks.like.options.gamma = 3: has no effect: it belongs to focal, and this is bce"),
    ("tasks.watch_time.options.delta=0", "tasks.watch_time.options.delta = 0: must be greater than 0"),
    ("tasks.watch_time.options.delta=x", "tasks.watch_time.options.delta = x: must be a valid number"),
    ("training.task_balance_options.alpha=1", "has no effect: it belongs to gradnorm, and this is fixed"),
    ("model.options.num_levels=3", "model.options.num_levels = 3: has no effect: it belongs to ple, and this is mmoe"),
    ("model.num_levels=3", "model.num_levels = 3: has no effect: it belongs to ple, and this is mmoe"),
    ("model.num_level=3", "model.num_level = 3: unknown key; did you mean num_levels?"),
    ("data.generate.options.user=3", "data.generate.options.user = 3: unknown key; did you mean users?"),
    ("data.generate.options.users=x", "data.generate.options.users = x: must be a valid integer"),
    (
        "tasks.like.reweight={by_label: {labl: w}}",
        "tasks.like.reweight.by_label.labl = w: unknown key; did you mean label",
    ),
    ("tasks.like.reweight={time_decay: {column: t}}", "tasks.like.reweight.time_decay.half_life_days: is missing"),
]


@pytest.mark.parametrize(("override", "words"), MISTAKES)
def test_a_wrong_setting_is_a_mistake_of_the_config(override: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(PRESET, [override])
    assert "command line: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.task_balance=dwa", "training.task_balance_options.temprature=1"], "did you mean temperature?"),
        (["tasks.like.loss=focal", "tasks.like.options.alpha=2"], "alpha = 2: must be less than or equal to 1"),
        (["tasks.like.loss=focal", "tasks.like.options.gamma=-1"], "must be greater than or equal to 0"),
        (["model.top=ple", "model.num_levels=0"], "model.num_levels = 0: must be greater than 0"),
        (["model.top=ple", "model.options.num_task_experts=true"], "must not be true"),
    ],
)
def test_settings_are_those_of_the_choice_that_is_made(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(PRESET, overrides)
    assert words in str(caught.value)


def test_the_line_of_a_setting_in_a_file_is_named(tmp_path: Path) -> None:
    text = Path(PRESET).read_text().replace("  tower_layers: [16]\n", "  tower_layers: [16]\n  num_levels: 3\n")
    line = text.splitlines().index("  num_levels: 3") + 1
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"c\.yaml:{line}: model\.num_levels = 3: has no effect"):
        load_config(tmp_path / "c.yaml")


def test_settings_of_a_top_may_stand_beside_its_name() -> None:
    beside = load_config(PRESET, ["model.top=ple", "model.num_levels=3"])
    assert beside == load_config(PRESET, ["model.top=ple", "model.options.num_levels=3"])
    assert beside.model.options == {"num_levels": 3}
    assert load_config(PRESET, ["model.num_levels=2"]).model.options == {}  # idle, and says nothing: the default


def test_a_comparison_takes_the_settings_of_all_its_tops() -> None:
    overrides = ["model.options.num_levels=3"]
    assert load_config(PRESET, overrides, tops=["mmoe", "ple"]).model.options == {"num_levels": 3}
    with pytest.raises(UserError, match="has no effect: it belongs to ple, and this is moe"):
        load_config(PRESET, overrides, tops=["mmoe", "moe"])
    with pytest.raises(UserError, match=r"num_levels = 0: must be greater than 0"):
        load_config(PRESET, ["model.num_levels=0"], tops=["mmoe", "ple"])


def test_who_builds_a_choice_without_a_config_is_told_too() -> None:
    module = importlib.import_module("models.losses.huber")
    assert settings_of(module, {"delta": 2}, "x").delta == 2
    with pytest.raises(
        UserError, match=r"x\.dela unknown key; did you mean delta\?\nmodels/losses/huber\.py says more"
    ):
        settings_of(module, {"dela": 2}, "x")


STRANGER = '''"""A top of one's own."""

import torch
from torch import nn
from pydantic import Field

from configs.choice_settings import ChoiceSettings
from configs.section import PositiveInt

WIDTH = torch.ones(4).shape[0]
LEAST = 2


class Settings(ChoiceSettings):
    width: PositiveInt = Field(default=LEAST, description="Numbers that pass through the middle.")


class Mine(nn.Module):
    pass


def build(settings, model, tasks, inputs):
    return Mine()
'''


def test_a_file_dropped_into_the_folder_is_a_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import models.tops

    monkeypatch.setattr(models.tops, "__path__", [*models.tops.__path__, str(tmp_path)])
    (tmp_path / "mine.py").write_text(STRANGER)
    assert settings("models.tops")["mine"]["width"].default == 2
    assert load_config(PRESET, ["model.top=mine", "model.options.width=3"]).model.options == {"width": 3}
    with pytest.raises(UserError, match=r"unknown key; did you mean width\?"):
        load_config(PRESET, ["model.top=mine", "model.options.widht=3"])
    (tmp_path / "mine.py").write_text(STRANGER.replace("default=LEAST", "default=WIDTH"))
    with pytest.raises(UserError, match=r"mine\.py:3: Settings needs an import of torch.*\nLet Settings use"):
        settings_type("models.tops", "mine")
