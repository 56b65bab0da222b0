"""The fork against separate backward passes, task by task: inner products, and which gradients the factors reach."""

import pytest
import torch
from torch import Tensor, nn

from configs.choices import available, read
from configs.errors import UserError
from configs.schema import ModelConfig, TaskConfig
from models.build import build_balance, build_top
from models.fork import CopyFork, Fork, MixFork, attach
from tests.models.configs import dense_inputs

TASKS = {"click": TaskConfig(), "like": TaskConfig(tower_layers=(5,)), "watch": TaskConfig(loss="mse")}
SHARING = [top for top in available("models.tops") if read("models.tops", top, "SHARES", True)]
FACTORS = torch.tensor([0.5, 2.0, -1.0])


def built(top: str) -> nn.Module:
    torch.manual_seed(0)
    own = {"num_task_experts": 2} if top == "ple" else {}
    model = ModelConfig(top=top, expert_layers=(12, 8), tower_layers=(6,), options=own)
    return build_top(model, TASKS, dense_inputs(10)).double()


def task_losses(top: nn.Module, x: Tensor) -> Tensor:
    return (top(x)[0] - torch.tensor([1.0, -1.0, 0.5])).square().sum(dim=0)


def fork_of(top: nn.Module) -> Fork:
    (fork,) = [module for module in top.modules() if isinstance(module, Fork)]
    return fork


def shared_values(top: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """(task losses, what the tasks share at the fork)."""
    fork, seen = fork_of(top), []

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[-1])
        return inputs

    handle = fork.register_forward_pre_hook(keep)
    losses = task_losses(top, x)
    handle.remove()
    return losses, seen[0]


def gradients(top: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*top.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True))


@pytest.mark.parametrize("top", SHARING)
def test_inner_products_are_those_of_separate_backward_passes(top):
    module, x = built(top), torch.randn(9, 10, dtype=torch.float64)
    losses, shared = shared_values(module, x)
    grads = [torch.autograd.grad(loss, shared, retain_graph=True)[0] for loss in losses]
    fork = fork_of(module)
    if isinstance(fork, MixFork):
        grads = [grad[fork.private :] for grad in grads]
    flat = torch.stack([grad.flatten() for grad in grads])
    seen = []
    fork.combine = lambda gram: seen.append(gram) or torch.ones(3)
    task_losses(module, x).sum().backward()
    torch.testing.assert_close(seen[0].double(), flat @ flat.T, rtol=1e-5, atol=1e-6)
    assert (seen[0].diagonal() > 0).sum() >= 2  # a tower may be dead from the start


@pytest.mark.parametrize("top", [top for top in SHARING if top != "ple"])
def test_factors_reach_what_is_shared_and_nothing_else(top):
    module, x = built(top), torch.randn(9, 10, dtype=torch.float64, requires_grad=True)
    losses = task_losses(module, x)
    plain = torch.autograd.grad(losses.sum(), list(module.parameters()), retain_graph=True)
    scaled = torch.autograd.grad(losses @ FACTORS.double(), list(module.parameters()))
    fork_of(module).combine = lambda _: FACTORS
    got = torch.autograd.grad(task_losses(module, x).sum(), list(module.parameters()))
    for (name, _), has, a, b in zip(module.named_parameters(), got, plain, scaled, strict=True):
        if name.startswith("towers") or (top == "mmoe" and "gates" in name):
            torch.testing.assert_close(has, a)
        elif top == "mmoe" and name.startswith("mixture.first"):
            experts = 4 * 12
            torch.testing.assert_close(has[:experts], b[:experts])
            torch.testing.assert_close(has[experts:], a[experts:])
        else:
            torch.testing.assert_close(has, b)


def test_a_ple_task_keeps_the_gradient_of_its_own_experts():
    module, x = built("ple"), torch.randn(9, 10, dtype=torch.float64)
    last = "levels.1"
    losses = task_losses(module, x)
    plain = gradients(module, losses.sum())
    scaled = gradients(module, losses @ FACTORS.double())
    fork_of(module).combine = lambda _: FACTORS
    got = gradients(module, task_losses(module, x).sum())
    own, shared = f"{last}.task.experts.layers.0.weight", f"{last}.shared.experts.layers.0.weight"
    torch.testing.assert_close(got[own], plain[own])
    torch.testing.assert_close(got[shared], scaled[shared])
    assert not torch.allclose(got[shared], plain[shared])


@pytest.mark.parametrize("top", SHARING)
def test_factors_of_one_change_nothing(top):
    module, x = built(top), torch.randn(9, 10, dtype=torch.float64)
    parameters = list(module.parameters())
    want = torch.autograd.grad(task_losses(module, x).sum(), parameters)
    fork_of(module).combine = lambda gram: torch.ones(len(gram))
    got = torch.autograd.grad(task_losses(module, x).sum(), parameters)
    torch.testing.assert_close(got, want)


def test_attach_reduces_before_it_combines_and_leaves_other_balances_alone():
    top = built("mmoe")
    attach(build_balance("fixed", TASKS), top)
    assert fork_of(top).combine is None
    calls = []
    attach(build_balance("pcgrad", TASKS), top, lambda gram: calls.append(gram.shape) or gram)
    task_losses(top, torch.randn(4, 10, dtype=torch.float64)).sum().backward()
    assert calls == [(3, 3)]


def test_tasks_that_share_nothing_cannot_be_combined():
    with pytest.raises(UserError, match="PCGrad balances the gradients that tasks share, but SingleTask shares none"):
        attach(build_balance("pcgrad", TASKS), built("single_task"))


def test_bf16_values_still_give_float32_inner_products():
    fork, seen = CopyFork(2), []
    fork.combine = lambda gram: seen.append(gram) or torch.tensor([1.0, 3.0])
    x = torch.randn(5, 4, dtype=torch.bfloat16, requires_grad=True)
    (fork(x) * torch.tensor([1.0, 2.0]).view(2, 1, 1)).sum().backward()
    assert seen[0].dtype == torch.float32
    assert seen[0].tolist() == [[20.0, 40.0], [40.0, 80.0]]
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full_like(x, 1 + 3 * 2))
