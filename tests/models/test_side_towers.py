"""Side towers: they see their own columns alone, and reach their own task alone."""

import pytest
import torch

from configs.choices import available
from configs.schema import Config, ModelConfig, TaskConfig
from models.build import top_of
from models.describe import layers
from tests.models.configs import config_of

TASKS = {"click": TaskConfig(tower_features=("position", "hour")), "like": TaskConfig()}


def config(tasks: dict[str, TaskConfig] = TASKS, **model) -> Config:
    return config_of(ModelConfig(**model), tasks, {"user": 6, "position": 2, "age": 1, "hour": 1})


@pytest.mark.parametrize("top", available("models.tops"))
def test_the_side_logit_is_added_to_its_task(top):
    torch.manual_seed(0)
    module = top_of(config(top=top, expert_layers=(8,)))
    x = torch.randn(5, 10)
    plain, _ = module.get_submodule("top")(x)
    side = module.get_submodule("side.click")(x[:, [6, 7, 9]])
    logits, _ = module(x)
    torch.testing.assert_close(logits, torch.cat([plain[:, :1] + side, plain[:, 1:]], dim=1))
    assert side.abs().max() > 0
    program = torch.export.export(module.eval(), (x,), dynamic_shapes=({0: torch.export.Dim("B", min=1)},)).module()
    torch.testing.assert_close(program(x[:1])[0], logits[:1])


def test_they_are_built_on_meta_and_described():
    with torch.device("meta"):
        module = top_of(config())
    total = sum(parameter.numel() for parameter in module.parameters())
    assert sum(layer.parameters for layer in layers(config())) == total


def test_without_tower_features_the_top_is_itself():
    assert not hasattr(top_of(config({"like": TaskConfig()})), "side")
