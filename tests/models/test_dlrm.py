"""DLRM beside tables: equal to the plain computation for every interaction; widths that cannot interact are refused."""

import itertools

import pytest
import torch

from configs.errors import UserError
from configs.layout import lay_out
from configs.load import load_config
from configs.schema import ModelConfig, TaskConfig
from models.build import build_top
from models.describe import layers
from tests.models import loops

TASKS = {"click": TaskConfig(), "like": TaskConfig()}


@pytest.mark.parametrize("interaction", ["dot", "cross", "none"])
def test_equals_the_plain_computation(interaction: str) -> None:
    torch.manual_seed(0)
    options = {"bottom_layers": (8, 4), "interaction": interaction, "cross_rank": 3, "top_layers": (7, 5)}
    model = ModelConfig(top="dlrm", tower_layers=(), options=options)
    top = build_top(model, TASKS, lay_out({"a": 4, "b": 4, "c": 4}, {"x": 3, "y": 2}))
    x = torch.randn(9, 17)
    assert top(x)[0].shape == (9, 2)
    torch.testing.assert_close(top(x)[0], loops.logits(top, x))
    x.requires_grad_()
    (grad,) = torch.autograd.grad(top(x)[0].sum(), x)
    assert grad.abs().sum(dim=0).min() > 0  # every input counts
    program = torch.export.export(top.eval(), (x.detach(),))
    torch.testing.assert_close(program.module()(x.detach())[0], top(x.detach())[0])


def mlp(*widths: int) -> list[int]:
    """Parameters of each layer."""
    return [(before + 1) * after for before, after in itertools.pairwise(widths)]


JOINED = 27 * 128
PUBLISHED = {
    "dlrm_mlperf": mlp(13, 512, 256, 128) + 3 * [JOINED * 512, 513 * JOINED] + mlp(JOINED, 1024, 1024, 512, 256, 1),
    "dlrm_serving": mlp(13, 256, 64) + mlp(64 + 27 * 26 // 2, 256, 128, 64, 1),
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_have_the_published_layers(preset: str) -> None:
    counts = [layer.parameters for layer in layers(load_config(f"configs/{preset}.yaml"))]
    assert [count for count in counts if count] == PUBLISHED[preset]


def test_widths_that_cannot_interact_are_refused() -> None:
    with pytest.raises(UserError, match=r"dot needs vectors of one width, but table c1 has 64, and .* with 32"):
        load_config("configs/dlrm_serving.yaml", ["model.options.bottom_layers=[256, 32]"])
