"""A stack as one operation against the same layers one by one: values, gradients, dropout, autocast, repeated use."""

import pytest
import torch
from torch import Tensor

from models.batched import products
from models.batched.parallel import ParallelLinear, ParallelMLP, WideLinear, forward_families, forward_family
from models.batched.stacks import Stack, on_own_inputs, on_shared_input
from models.draws import share_row_keys

STACKS = [Stack(3, 5, 2, activate_output=True), Stack(2, 4), Stack(2, 3, 1), Stack(4, 2, 0, activate_output=True)]


def shared(dropout: float = 0.0) -> tuple[WideLinear, dict[str, ParallelMLP]]:
    """Experts, gates, and a family of residuals with nothing behind its first layer."""
    experts = ParallelMLP(4, (12, 8, 6), "relu", dropout, activate_output=True)
    gates = ParallelMLP(2, (7, 4), "relu", activate_output=False)
    first = WideLinear(10, {"experts": experts.first_layer, "gates": gates.first_layer, "residuals": (4, 6)})
    return first, {"experts": experts, "gates": gates}


def one_by_one(first: WideLinear, networks: dict[str, ParallelMLP], x: Tensor) -> dict[str, Tensor]:
    return {name: networks[name](h) if name in networks else h for name, h in first(x).items()}


def operands(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes]


def test_the_derivative_on_shared_input_is_that_of_the_function():
    x, weight, bias, *later = operands(
        (6, 7), (15 + 8 + 6 + 8, 7), (37,), (3, 4, 5), (3, 4), (3, 2, 4), (3, 2), (2, 5, 3), (2, 5)
    )
    assert torch.autograd.gradcheck(
        lambda x, weight, bias, *later: on_shared_input(x, weight, bias, STACKS, later), (x, weight, bias, *later)
    )


@pytest.mark.parametrize("networks", [2, 6])
def test_the_derivative_on_own_inputs_is_that_of_the_function(networks):
    stack = Stack(networks, 6 // (networks // 2), 1, activate_output=True)
    tensors = operands((2, 5, 4), (2, 6, 5), (2, 6), (networks, 3, stack.width), (networks, 3))
    assert torch.autograd.gradcheck(lambda x, *rest: on_own_inputs(x, stack, rest), tensors)


@pytest.mark.parametrize("kernel", ["blas", "onednn"])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("rows", [1, 300])
def test_a_stack_is_its_layers_one_by_one(rows, strided, kernel, monkeypatch):
    monkeypatch.setattr(products, "fastest", lambda what, ways, *_: ways[kernel])
    torch.manual_seed(0)
    first, networks = shared()
    x = torch.randn(10, rows).t() if strided else torch.randn(rows, 10)
    leaves = [x.requires_grad_(), *first.parameters(), *(p for net in networks.values() for p in net.parameters())]
    got, want = forward_families(first, networks, x), one_by_one(first, networks, x)
    assert list(got) == list(want)
    grads = [torch.randn_like(h) for h in want.values()]
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-5, atol=1e-6)
    pairs = zip(
        torch.autograd.grad(list(got.values()), leaves, grads),
        torch.autograd.grad(list(want.values()), leaves, grads),
        strict=True,
    )
    for got_grad, want_grad in pairs:
        torch.testing.assert_close(got_grad, want_grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gelu", "silu", "leaky_relu", "tanh"])
def test_other_activations_go_layer_by_layer(name):
    torch.manual_seed(0)
    towers, first = ParallelMLP(3, (5, 4, 1), name, activate_output=False), ParallelLinear(3, 6, 5)
    x = torch.randn(3, 6, 8)
    assert torch.equal(forward_family(first, towers, x), towers(first(x)))


def test_dropout_hides_in_training_only_and_gradients_know_what_was_hidden():
    first, networks = shared(dropout=0.4)
    x = torch.randn(2000, 10)
    share_row_keys(networks["experts"]).tensor = torch.arange(2000)
    got = forward_families(first, networks, x)["experts"]
    want = one_by_one(first, networks, x)["experts"]
    torch.testing.assert_close(got, want)
    weight = networks["experts"].operands()[0]
    grad = torch.randn_like(got)
    got_grads = torch.autograd.grad(got, (weight, first.weight), grad)
    for got_grad, want_grad in zip(got_grads, torch.autograd.grad(want, (weight, first.weight), grad), strict=True):
        torch.testing.assert_close(got_grad, want_grad, rtol=1e-4, atol=1e-4)
    for network in networks.values():
        network.eval()
    calm = forward_families(first, networks, x)["experts"]
    assert (got == 0).float().mean() > (calm == 0).float().mean() + 0.1
    assert torch.equal(calm, forward_families(first, networks, x)["experts"])


def test_autocast_computes_in_bf16_and_trains_float32_weights():
    first, networks = shared()
    x = torch.randn(64, 10, requires_grad=True)
    exact = forward_families(first, networks, x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = forward_families(first, networks, x)
    for name, columns in rounded.items():
        assert columns.dtype == torch.bfloat16
        torch.testing.assert_close(columns.float(), exact[name], rtol=0.05, atol=0.05)
    rounded["experts"].float().sum().backward()
    for tensor in (x, first.weight, *networks["experts"].operands()):
        assert tensor.grad is not None
        assert tensor.grad.dtype == torch.float32


def test_a_graph_can_be_run_backward_twice():
    first, networks = shared()
    x = torch.randn(9, 10, requires_grad=True)
    loss = forward_families(first, networks, x)["experts"].square().sum()
    (once,) = torch.autograd.grad(loss, x, retain_graph=True)
    (again,) = torch.autograd.grad(loss, x)
    assert torch.equal(once, again)


def test_an_input_that_needs_no_gradient_gets_none():
    first, networks = shared()
    x = torch.randn(8, 10)
    forward_families(first, networks, x)["residuals"].sum().backward()
    assert first.weight.grad is not None
    residuals = 4 * 6
    torch.testing.assert_close(first.weight.grad[-residuals:], x.sum(dim=0).expand(residuals, 10))
    assert not first.weight.grad[:-residuals].any()
