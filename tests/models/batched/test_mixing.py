"""Mixing is the weighted sum of the experts, in whatever way it is computed, with its derivative."""

import pytest
import torch

from configs import formulations
from models.batched import mixing


@pytest.fixture(params=["at once", "by pairs", "by rows"], autouse=True)
def way(request, monkeypatch):
    monkeypatch.setattr(mixing, "_FEW", 1 << 40 if request.param == "at once" else 0)
    monkeypatch.setattr(mixing, "fastest", lambda what, ways, *_: ways[request.param])
    return request.param


def test_a_mixture_is_a_weighted_sum_with_its_derivative():
    gates = torch.rand(2, 3, 5, dtype=torch.float64, requires_grad=True)
    experts = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(mixing.mix(gates, experts), torch.einsum("geb,ehb->ghb", gates, experts))
    assert torch.autograd.gradcheck(mixing.mix, (gates, experts))


def test_experts_get_their_gradient_by_other_gates_on_request():
    gates, experts = torch.rand(2, 3, 5), torch.randn(3, 4, 5, requires_grad=True)
    grad = torch.randn(2, 4, 5)
    (got,) = torch.autograd.grad(mixing.mix(gates, experts, lambda gates, _: 2 * gates), experts, grad)
    torch.testing.assert_close(got, 2 * torch.einsum("geb,ghb->ehb", gates, grad))


def test_a_large_mixture_is_measured_forward_and_backward(monkeypatch):
    monkeypatch.setattr(mixing, "_FEW", 0)
    monkeypatch.setattr(mixing, "fastest", formulations.fastest)
    formulations.follow({})
    gates, experts = torch.rand(2, 3, 5, requires_grad=True), torch.randn(3, 4, 5, requires_grad=True)
    with formulations.measuring():
        mixing.mix(gates, experts).sum().backward()
    measured = formulations.followed()
    formulations.follow({})
    assert {what.split(" of")[0] for what in measured} == {"mixture", "inner products"}
