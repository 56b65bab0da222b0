"""Task balances: by hand where a paper gives a formula, by its loop where it gives an algorithm."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.choices import available
from configs.errors import UserError
from configs.schema import TaskConfig
from models.balancing import Balance
from models.build import build_balance

BALANCES = available("models.balance")
TWO = {"click": TaskConfig(), "like": TaskConfig()}
WEIGHTED = {"click": TaskConfig(weight=2.0), "watched": TaskConfig(weight=0.0), "like": TaskConfig(weight=0.5)}


def gradients(seed: int, tasks: int, width: int = 6) -> torch.Tensor:
    return torch.randn(tasks, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def combined(balance: Balance, grads: torch.Tensor) -> torch.Tensor:
    return balance.combine(grads @ grads.T) @ grads


@pytest.mark.parametrize("name", BALANCES)
def test_every_balance_starts_with_the_weights_of_the_config(name):
    balance = build_balance(name, WEIGHTED)
    losses = torch.tensor([1.0, 10.0, 4.0], requires_grad=True)
    loss = balance(losses, torch.ones(3))
    loss.backward()
    assert loss.item() == pytest.approx(2 * 1 + 0.5 * 4)
    assert losses.grad is not None
    assert losses.grad.tolist() == [2.0, 0.0, 0.5]


@pytest.mark.parametrize("name", BALANCES)
def test_state_survives_saving(name):
    balance, again = build_balance(name, TWO), build_balance(name, TWO)
    for losses in ([1.0, 1.0], [0.5, 0.9], [0.4, 0.9]):
        balance.observe(torch.tensor(losses))
        balance.combine(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
    again.load_state_dict(balance.state_dict())
    assert torch.equal(again.weights(), balance.weights())
    again.observe(torch.tensor([0.2, 0.9]))
    balance.observe(torch.tensor([0.2, 0.9]))
    assert torch.equal(again.weights(), balance.weights())


def test_mistakes_in_options_are_named():
    with pytest.raises(UserError, match="'pcgrat' is not in models/balance: did you mean pcgrad"):
        build_balance("pcgrat", TWO)
    with pytest.raises(UserError, match=r"task_balance_options\.temprature unknown key; did you mean temperature\?\n"):
        build_balance("dwa", TWO, {"temprature": 1})
    with pytest.raises(UserError, match="has no effect: it belongs to gradnorm, and this is fixed"):
        build_balance("fixed", TWO, {"alpha": 1})


def test_uncertainty_learns_the_log_of_twice_the_loss():
    balance = build_balance("uncertainty", WEIGHTED)
    losses = torch.tensor([0.2, 7.0, 3.0])
    optimizer = torch.optim.SGD(balance.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        balance(losses, torch.ones(3)).backward()
        optimizer.step()
    learned = balance.get_parameter("log_variances").detach()
    torch.testing.assert_close(learned, torch.tensor([math.log(0.4), 0.0, math.log(6.0)]), rtol=1e-3, atol=1e-3)


def test_uncertainty_of_a_task_is_that_of_its_labelled_rows():
    """A quarter of the rows has the second label, none the third: as if the other rows were not there."""
    three = TWO | {"later": TaskConfig()}
    balance = build_balance("uncertainty", three)
    optimizer = torch.optim.SGD(balance.parameters(), lr=0.5)
    for _ in range(500):
        optimizer.zero_grad()
        balance(torch.tensor([0.2, 0.25 * 3.0, 0.0]), torch.tensor([1.0, 0.25, 0.0])).backward()
        optimizer.step()
    learned = balance.get_parameter("log_variances").detach()
    torch.testing.assert_close(learned, torch.tensor([math.log(0.4), math.log(6.0), 0.0]), rtol=1e-3, atol=1e-3)


def test_dwa_by_hand():
    balance = build_balance("dwa", WEIGHTED, {"temperature": 2.0})
    balance.observe(torch.tensor([1.0, 5.0, 2.0]))
    assert balance.weights().tolist() == [2.0, 0.0, 0.5]
    balance.observe(torch.tensor([0.5, 5.0, 1.8]))
    slow, fast = math.exp(0.9 / 2), math.exp(0.5 / 2)
    want = [2 * 2 * fast / (fast + slow), 0.0, 0.5 * 2 * slow / (fast + slow)]
    assert balance.weights().tolist() == pytest.approx(want)
    balance.observe(torch.tensor([math.nan, 1.0, 1.8]))  # no rows of click: its rate counts as steady
    assert torch.isfinite(balance.weights()).all()


def test_gradnorm_brings_forces_together_and_keeps_the_sum():
    balance = build_balance("gradnorm", WEIGHTED, {"learning_rate": 0.01})
    slopes = torch.tensor([10.0, 5.0, 1.0])
    for _ in range(400):
        forces = balance.weights() * slopes
        assert balance.combine(forces.outer(forces)).tolist() == [1.0, 1.0, 1.0]
    forces = balance.weights() * slopes
    assert balance.weights()[1] == 0
    assert forces[0].item() == pytest.approx(forces[2].item(), rel=0.15)
    assert balance.weights().sum().item() == pytest.approx(2.5)


def test_gradnorm_leaves_a_task_without_labels_alone():
    three = TWO | {"later": TaskConfig(weight=2.0)}
    balance = build_balance("gradnorm", three)
    slopes = torch.tensor([4.0, 1.0, 0.0])
    for _ in range(100):
        balance.observe(torch.tensor([1.0, 1.0, math.nan]))
        forces = balance.weights() * slopes
        balance.combine(forces.outer(forces))
    weights = balance.weights().tolist()
    assert weights[2] == 2.0
    assert weights[:2] == pytest.approx([0.4, 1.6], abs=0.1)
    balance.combine(torch.zeros(3, 3))  # a batch in which no task has labels
    assert balance.weights().tolist() == weights


def test_gradnorm_pulls_harder_for_the_task_that_lags():
    balance = build_balance("gradnorm", TWO, {"alpha": 1.0})
    balance.observe(torch.tensor([1.0, 1.0]))
    balance.observe(torch.tensor([0.2, 0.9]))
    for _ in range(100):
        forces = balance.weights()
        balance.combine(forces.outer(forces))
    assert balance.weights()[1] > 1.2 > 0.8 > balance.weights()[0]


def pcgrad_of_the_paper(grads: torch.Tensor) -> torch.Tensor:
    """Algorithm 1, other tasks in the order i + 1, i + 2, ..."""
    total = torch.zeros_like(grads[0])
    for i in range(len(grads)):
        projected = grads[i].clone()
        for shift in range(1, len(grads)):
            other = grads[(i + shift) % len(grads)]
            if projected @ other < 0:
                projected -= (projected @ other) / (other @ other) * other
        total += projected
    return total


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_pcgrad_is_the_algorithm_of_the_paper(seed, tasks):
    grads = gradients(seed, tasks)
    balance = build_balance("pcgrad", {f"task_{i}": TaskConfig() for i in range(tasks)})
    torch.testing.assert_close(combined(balance, grads), pcgrad_of_the_paper(grads))


def test_pcgrad_of_two_conflicting_tasks_goes_against_neither():
    grads = torch.tensor([[1.0, 0.0], [-0.9, 0.1]])
    step = combined(build_balance("pcgrad", TWO), grads)
    assert (grads.sum(0) @ grads.T).min() < 0
    assert (step @ grads.T).min() >= 0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 3))
def test_cagrad_is_as_good_as_a_search_over_the_simplex(seed, tasks):
    """Equation 3 of the paper: the least improvement over tasks, within the ball around the mean gradient."""
    c, grads = 0.5, gradients(seed, tasks)
    balance = build_balance("cagrad", {f"task_{i}": TaskConfig() for i in range(tasks)}, {"c": c})
    mean = grads.mean(0)
    step = combined(balance, grads) * (1 + c**2) / tasks
    assert (step - mean).norm().item() == pytest.approx(c * mean.norm().item(), rel=1e-3)

    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 101, dtype=torch.float64)] * (tasks - 1)).view(-1, tasks - 1)
    grid = grid[grid.sum(1) <= 1]
    w = torch.cat([grid, 1 - grid.sum(1, keepdim=True)], dim=1)
    best = (w @ grads @ mean + c * mean.norm() * (w @ grads).norm(dim=1)).min()
    assert (step @ grads.T).min().item() == pytest.approx(best.item(), abs=0.03 * mean.norm().item())


def test_cagrad_without_radius_is_plain_training():
    grads = gradients(0, 3)
    balance = build_balance("cagrad", {f"task_{i}": TaskConfig() for i in range(3)}, {"c": 0.0})
    torch.testing.assert_close(combined(balance, grads), grads.sum(0))


@pytest.mark.parametrize("name", BALANCES)
def test_a_task_without_gradient_disturbs_no_other(name):
    grads = torch.zeros(3, 4)
    grads[0, 0], grads[2, 1] = 1.0, 2.0
    step = combined(build_balance(name, WEIGHTED), grads)
    assert torch.isfinite(step).all()
    assert (step @ grads.T)[[0, 2]].min() > 0
