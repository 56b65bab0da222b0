"""The load-balance penalty: its value by hand, its gradient, and ranks that add up to one process."""

import pytest
import torch

from models.experts import load_balance_loss


def gates(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(dim=2)


def test_zero_when_experts_share_alike_and_largest_on_a_single_one():
    weights = torch.ones(6, 2)
    even = torch.full((6, 2, 4), 0.25)
    single = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(6, 2, 4) + 1e-9
    assert load_balance_loss({"gate": even}, weights).item() == pytest.approx(0, abs=1e-6)
    assert load_balance_loss({"gate": single}, weights).item() == pytest.approx(3, rel=1e-5)
    assert load_balance_loss({"a": single, "b": single}, weights).item() == pytest.approx(6, rel=1e-5)


def test_tasks_may_use_different_experts():
    one = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).expand(5, 2, 2)
    assert load_balance_loss({"gate": one}, torch.ones(5, 2)).item() == pytest.approx(0, abs=1e-6)


def test_experts_out_of_reach_do_not_count():
    """PLE: two tasks with an expert each and a shared one; equal shares of what a gate reaches cost nothing."""
    gate = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]).expand(3, 2, 3)
    assert load_balance_loss({"level_0": gate}, torch.ones(3, 2)).item() == pytest.approx(0, abs=1e-6)


def test_padding_rows_do_not_count():
    gate, weights = gates(8, 2, 4), torch.ones(8, 2)
    weights[5:] = 0
    whole = load_balance_loss({"gate": gate}, weights)
    assert whole.item() == pytest.approx(load_balance_loss({"gate": gate[:5]}, weights[:5]).item())


def test_a_top_without_gates_pays_nothing():
    assert load_balance_loss({}, torch.ones(3, 2)).item() == 0


def test_gradient_is_that_of_the_squared_coefficient_of_variation():
    logits = torch.randn(8, 2, 4, requires_grad=True)
    load_balance_loss({"gate": logits.softmax(2)}, torch.ones(8, 2)).backward()
    assert logits.grad is not None
    got, logits.grad = logits.grad, None
    load = logits.softmax(2).mean(dim=(0, 1))
    (load.var(correction=0) / load.mean().square()).backward()
    assert logits.grad is not None
    torch.testing.assert_close(got, logits.grad)
    assert got.abs().max() > 0


def test_two_ranks_are_one_process_on_the_joined_rows():
    logits = torch.randn(8, 2, 4, requires_grad=True)
    weights = torch.ones(8, 2)
    weights[6:] = 0
    whole = load_balance_loss({"gate": logits.softmax(2)}, weights)
    (want,) = torch.autograd.grad(whole, logits)

    halves = [({"gate": part.softmax(2)}, w) for part, w in zip(logits.chunk(2), weights.chunk(2), strict=True)]
    sent: list[torch.Tensor] = []
    for half, w in halves:
        load_balance_loss(half, w, lambda x: sent.append(x) or x)
    losses = [load_balance_loss(half, w, lambda _: sent[0] + sent[1]) for half, w in halves]
    assert [loss.item() for loss in losses] == pytest.approx([whole.item()] * 2, abs=1e-6)
    (got,) = torch.autograd.grad(torch.stack(losses).mean(), logits)
    torch.testing.assert_close(got, want)
