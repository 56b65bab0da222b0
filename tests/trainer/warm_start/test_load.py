"""What a warm start refuses once it knows the weights of the top."""

from typing import Any

import pytest

from configs.errors import UserError
from configs.schema import Config, WarmStart
from models.places import blocks_of
from trainer.warm_start.load import _refuse_idle_patterns, _refuse_mismatches
from trainer.warm_start.top import match_top


def config(**model: Any) -> Config:
    return Config.model_validate(
        {
            "data": {"root": "unused"},
            "features": {"age": {}},
            "model": model,
            "tasks": {"click": {}},
            "training": {"run_dir": "runs/b"},
        }
    )


def warm(**more: Any) -> WarmStart:
    return WarmStart.model_validate({"from": "runs/a", **more})


def refuse(settings: WarmStart) -> None:
    here, there = blocks_of(config(tower_layers=[16])), blocks_of(config(tower_layers=[8]))
    _refuse_mismatches(settings, match_top(here, there, lambda name: settings.takes(f"top.{name}")))


def test_other_widths_are_refused_with_the_names_to_exclude() -> None:
    with pytest.raises(UserError) as error:
        refuse(warm())
    first, *layers, remedy = str(error.value).splitlines()
    assert first == "training.warm_start: sizes of the top differ from those of runs/a:"
    assert "  top.towers.groups.0.first.weight: click has [1, 16, 16], and [1, 8, 16] there" in layers
    names = remedy.split("training.warm_start.exclude=[")[1].rstrip("]").split(",")
    refuse(warm(exclude=names))
    refuse(warm(exclude=["top.towers.*"]))
    refuse(warm(include=["tables.*"]))


def test_a_pattern_that_names_nothing_is_a_mistake() -> None:
    names = ["tables.item", "top.mixture.first.weight"]
    _refuse_idle_patterns(warm(include=["tables.*", "top.*"], exclude=["top.mix*"]), names)
    with pytest.raises(UserError, match=r"include: no table .* is named 'tables.itm'\n.*did you mean tables.item"):
        _refuse_idle_patterns(warm(include=["tables.itm"]), names)
