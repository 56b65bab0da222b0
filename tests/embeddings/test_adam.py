"""The CPU's Adam is torch's own, bit for bit, before and after its state went through a checkpoint."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from embeddings.adam import CpuAdam

SETTINGS: list[dict[str, Any]] = [{}, {"weight_decay": 0.1, "eps": 1e-3}, {"weight_decay": 0.1, "decoupled": True}]


Trained = tuple[nn.Module, optim.Optimizer]


def pair(weight_decay: float = 0.0, eps: float = 1e-8, decoupled: bool = False) -> tuple[Trained, Trained]:
    """(model, its optimizer), this project's and torch's, from the same weights."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
    theirs = copy.deepcopy(ours)
    shared: dict[str, Any] = {"lr": 0.01, "weight_decay": weight_decay, "eps": eps}
    kind = optim.AdamW if decoupled else optim.Adam
    return (
        (ours, CpuAdam(ours.parameters(), decoupled_weight_decay=decoupled, **shared)),
        (theirs, kind(theirs.parameters(), fused=True, **shared)),
    )


def train(trained: Trained, steps: int, seed: int) -> list[Tensor]:
    model, optimizer = trained
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 7, generator=generator)).square().mean().backward()
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def hand_over(source: Trained, target: Trained) -> None:
    """As a checkpoint does: by value, each number a tensor of its own."""
    state = source[1].state_dict()
    state["state"] = {
        index: {name: value.clone() for name, value in values.items()} for index, values in state["state"].items()
    }
    target[0].load_state_dict(source[0].state_dict())
    target[1].load_state_dict(copy.deepcopy(state))


@pytest.mark.parametrize("settings", SETTINGS)
def test_steps_are_torchs_bit_for_bit(settings):
    ours, theirs = pair(**settings)
    for got, want in zip(train(ours, 9, 1), train(theirs, 9, 1), strict=True):
        assert torch.equal(got, want)
    for got, want in zip(ours[1].state.values(), theirs[1].state.values(), strict=True):
        assert got.keys() == want.keys()
        for name in want:
            assert torch.equal(got[name], want[name])


@pytest.mark.parametrize("settings", SETTINGS)
def test_state_goes_to_torchs_optimizer_and_back(settings):
    ours, theirs = pair(**settings)
    train(ours, 4, 1)
    hand_over(ours, theirs)
    train(theirs, 4, 2)
    hand_over(theirs, ours)
    for got, want in zip(train(ours, 4, 3), train(theirs, 4, 3), strict=True):
        assert torch.equal(got, want)
    assert {state["step"].item() for state in ours[1].state.values()} == {12.0}


def test_a_parameter_without_a_gradient_stays():
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = CpuAdam([used, unused], lr=0.1)
    used.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(unused.detach(), torch.ones(3))
    assert (used.detach() < 1).all()
