"""Cosines between tasks' gradients: planted agreement and conflict, ranks, and nothing left behind."""

from typing import Any

import pytest
import torch

from configs.schema import ModelConfig, TaskConfig
from models.build import build_top
from models.conflict import task_gradient_cosines
from models.criterion import Criterion
from models.fork import Fork
from tests.models.configs import dense_inputs

TASKS = {"a": TaskConfig(loss="mse"), "same": TaskConfig(loss="mse"), "opposite": TaskConfig(loss="mse")}


def problem(top: str) -> Any:
    torch.manual_seed(0)
    model = ModelConfig(top=top, expert_layers=(12, 8), tower_layers=(), dropout=0.3, gate_noise=0.5)
    module = build_top(model, TASKS, dense_inputs(10))
    x = torch.randn(64, 10)
    signal = 100 * torch.ones(64, 1)  # far from every prediction: the sign of the error is that of the label
    return module, Criterion(TASKS), x, torch.cat([signal, signal, -signal], dim=1), torch.ones(64, 3)


def with_equal_towers(module: torch.nn.Module) -> torch.nn.Module:
    first = module.get_parameter("towers.groups.0.first.weight")
    with torch.no_grad():
        first.copy_(first[:1].expand_as(first))
    return module


def test_agreement_and_conflict_show():
    module, *rest = problem("shared_bottom")
    cosines = task_gradient_cosines(with_equal_towers(module), *rest)
    want = torch.tensor([[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
    torch.testing.assert_close(cosines, want, rtol=0, atol=0.02)


@pytest.mark.parametrize("top", ["shared_bottom", "moe", "mmoe", "ple"])
def test_only_shared_weights_count(top):
    """The same as over the parameters that the architecture shares, chosen by name."""
    module, criterion, x, labels, weights = problem(top)
    got = task_gradient_cosines(module, criterion, x, labels, weights)
    assert ((got >= -1.0001) & (got <= 1.0001)).all()
    torch.testing.assert_close(got.diagonal(), torch.ones(3))
    if top == "shared_bottom":
        module.eval()
        losses = criterion(module(x)[0], labels, weights)
        named = {name: p for name, p in module.named_parameters() if not name.startswith("towers")}
        grads = [torch.autograd.grad(loss, list(named.values()), retain_graph=True) for loss in losses]
        flat = torch.stack([torch.cat([part.flatten() for part in grad]) for grad in grads])
        unit = flat / flat.norm(dim=1, keepdim=True)
        torch.testing.assert_close(got, unit @ unit.T)


def test_tasks_that_share_nothing_have_no_cosine():
    assert task_gradient_cosines(*problem("single_task")).isnan().all()


def test_a_task_without_labels_has_no_cosine():
    module, criterion, x, labels, weights = problem("mmoe")
    weights[:, 1] = 0
    cosines = task_gradient_cosines(module, criterion, x, labels, weights)
    assert cosines[1].isnan().all()
    assert cosines[0, 2].isfinite()


def test_ranks_are_summed_before_cosines():
    module, criterion, x, labels, weights = problem("mmoe")
    whole = task_gradient_cosines(module, criterion, x, labels, weights)
    halves = [tuple(part.chunk(2)[half] for part in (x, labels, weights)) for half in range(2)]
    sent: list[torch.Tensor] = []
    for half in halves:
        task_gradient_cosines(module, criterion, *half, reduce_sum=lambda g: sent.append(g) or g)
    for half in halves:
        got = task_gradient_cosines(module, criterion, *half, reduce_sum=lambda _: sent[0] + sent[1])
        torch.testing.assert_close(got, whole, rtol=1e-4, atol=1e-5)


def test_it_leaves_no_trace():
    module, criterion, x, labels, weights = problem("mmoe")
    before = torch.get_rng_state()
    task_gradient_cosines(module, criterion, x, labels, weights, rows=7)
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_it_bypasses_the_task_balance():
    module, *rest = problem("mmoe")
    plain = task_gradient_cosines(module, *rest)
    calls = []
    fork = next(part for part in module.modules() if isinstance(part, Fork))
    fork.combine = lambda gram: calls.append(gram) or torch.zeros(3)
    assert torch.equal(task_gradient_cosines(module, *rest), plain)
    assert not calls
    assert fork.combine is not None
