"""Batched layers start as independent nn.Linear layers do."""

import math

import pytest
import torch
from torch import nn

from configs.schema import ModelConfig
from models.batched.parallel import ParallelLinear, activation
from models.experts import MixtureOfExperts


@pytest.mark.parametrize(("fan_in", "fan_out"), [(400, 50), (50, 400)])
def test_initial_values_are_those_of_separate_linear_layers(fan_in, fan_out):
    torch.manual_seed(0)
    batched, single = ParallelLinear(8, fan_in, fan_out), nn.Linear(fan_in, fan_out)
    bound = 1 / math.sqrt(fan_in)
    for got, want in ((batched.weight, single.weight), (batched.bias, single.bias)):
        assert got.abs().max() <= bound
        assert want.abs().max() <= bound
        assert got.abs().max() > 0.97 * bound
        assert got.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert not torch.equal(batched.weight[0], batched.weight[1])


def test_the_wide_first_layer_starts_like_one_layer_an_expert():
    mixture = MixtureOfExperts(
        ModelConfig(num_experts=16, expert_layers=(32, 8)), input_dim=100, num_gates=2, fork=True
    )
    assert mixture.first.weight.shape == (16 * 32 + 2 * 16, 100)
    assert mixture.first.weight.abs().max().item() == pytest.approx(0.1, rel=0.01)


def test_activations_of_the_schema_exist():
    for name in ModelConfig.model_json_schema()["properties"]["activation"]["enum"]:
        assert isinstance(activation(name), nn.Module)
