"""Side towers: they see their own columns alone, and reach their own task alone."""

import pytest
import torch

from configs.choices import available
from configs.errors import UserError
from configs.schema import ModelConfig, TaskConfig
from models.build import build_top, materialize
from models.describe import layers

COLUMNS = {"user": (0, 6), "position": (6, 8), "hour": (8, 10)}
TASKS = {"click": TaskConfig(tower_features=("position", "hour")), "like": TaskConfig()}


@pytest.mark.parametrize("top", available("models.tops"))
def test_the_side_logit_is_added_to_its_task(top):
    torch.manual_seed(0)
    module = build_top(ModelConfig(top=top, expert_layers=(8,)), TASKS, 10, COLUMNS)
    x = torch.randn(5, 10)
    plain, _ = module.get_submodule("top")(x)
    side = module.get_submodule("side.click")(x[:, 6:])
    logits, _ = module(x)
    torch.testing.assert_close(logits, torch.cat([plain[:, :1] + side, plain[:, 1:]], dim=1))
    assert side.abs().max() > 0
    program = torch.export.export(module.eval(), (x,), dynamic_shapes=({0: torch.export.Dim("B", min=1)},)).module()
    torch.testing.assert_close(program(x[:1])[0], logits[:1])


def test_they_are_built_on_meta_and_described():
    with torch.device("meta"):
        module = build_top(ModelConfig(), TASKS, 10, COLUMNS)
    materialize(module, "cpu")
    total = sum(parameter.numel() for parameter in module.parameters())
    assert sum(layer.parameters for layer in layers(ModelConfig(), TASKS, 10, COLUMNS)) == total


def test_without_tower_features_the_top_is_itself():
    assert not hasattr(build_top(ModelConfig(), {"like": TaskConfig()}, 10, COLUMNS), "side")


def test_an_unknown_feature_is_named():
    tasks = {"click": TaskConfig(tower_features=("positon",))}
    with pytest.raises(UserError, match=r"click\.tower_features: 'positon' is no feature\ndid you mean position"):
        build_top(ModelConfig(), tasks, 10, COLUMNS)
