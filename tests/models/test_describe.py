"""The description of a top: every parameter counted once, shapes as computed, and lines that fit a screen."""

import pytest
from torch import nn

from configs.choices import available
from configs.schema import ModelConfig, TaskConfig
from models.build import top_of
from models.describe import describe, layers
from tests.models.configs import config_of

TASKS = {"engagement": TaskConfig(), "click": TaskConfig()}


@pytest.mark.parametrize("options", [{}, {"residual": True, "normalization": "layer", "gate_layers": (16, 8)}])
@pytest.mark.parametrize("top", available("models.tops"))
def test_parameters_add_up_and_lines_fit(top, options):
    config = config_of(ModelConfig(top=top, **options), TASKS, {"x": 100})
    total = sum(parameter.numel() for parameter in top_of(config).parameters())
    assert sum(layer.parameters for layer in layers(config)) == total
    text = describe(config)
    assert f"{total:,}" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_the_reference_model_layer_by_layer():
    config = config_of(ModelConfig(top="mmoe", gate_layers=(16, 8)), TASKS, {"x": 100})
    got = [(layer.name, layer.computes, layer.shape, layer.parameters) for layer in layers(config)]
    assert got == [
        ("mixture.first: experts", "4 x (100 -> 64)", "[4, 64, B]", 4 * 64 * 101),
        ("mixture.first: gates", "2 x (100 -> 16)", "[2, 16, B]", 2 * 16 * 101),
        ("mixture.experts.layers.0", "4 x (64 -> 32)", "[4, 32, B]", 4 * 32 * 65),
        ("mixture.experts.layers.1", "4 x (32 -> 16)", "[4, 16, B]", 4 * 16 * 33),
        ("mixture.gates.layers.0", "2 x (16 -> 8)", "[2, 8, B]", 2 * 8 * 17),
        ("mixture.gates.layers.1", "2 x (8 -> 4)", "[2, 4, B]", 2 * 4 * 9),
        ("towers.groups.0.first", "2 x (16 -> 32)", "[2, 32, B]", 2 * 32 * 17),
        ("towers.groups.0.rest.layers.0", "2 x (32 -> 16)", "[2, 16, B]", 2 * 16 * 33),
        ("towers.groups.0.rest.layers.1", "2 x (16 -> 1)", "[2, 1, B]", 2 * 17),
    ]


def test_a_top_of_ones_own_is_described_too(monkeypatch):
    class Own(nn.Sequential):
        def __init__(self, *_: object) -> None:
            super().__init__(nn.Linear(100, 7), nn.Tanh(), nn.Linear(7, 2))

    monkeypatch.setattr("models.tops.mmoe.build", Own)
    lines = describe(config_of(ModelConfig(top="mmoe"), TASKS, {"x": 100})).splitlines()
    assert any("Linear" in line and "[B, 7]" in line and "707" in line for line in lines)
