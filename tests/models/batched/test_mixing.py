"""Mixing is the weighted sum of the experts, few or many rows, with its derivative."""

import pytest
import torch

from models.batched import mixing


@pytest.fixture(params=["few", "many"], autouse=True)
def path(request, monkeypatch):
    monkeypatch.setattr(mixing, "_FEW", 1 << 40 if request.param == "few" else 0)


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
