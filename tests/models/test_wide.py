"""The wide product is the same on every kernel: values, gradients, and gradients' independence of what is needed."""

import pytest
import torch

from models import wide


@pytest.fixture(params=["left to autograd", "as the machine likes", "without oneDNN"])
def kernel(request, monkeypatch):
    if request.param != "left to autograd":
        monkeypatch.setattr(wide, "_SMALL", 0)
    if request.param == "without oneDNN":
        monkeypatch.setattr(wide, "_HAS_ONEDNN", False)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("rows", [1, 300])
def test_value_and_gradients_are_those_of_a_linear_layer(rows, strided):
    torch.manual_seed(0)
    x = torch.randn(20, rows).t() if strided else torch.randn(rows, 20)
    x.requires_grad_()
    weight, bias = torch.randn(50, 20, requires_grad=True), torch.randn(50, requires_grad=True)
    grad = torch.randn(50, rows)
    got, want = (
        torch.cat(list(wide.wide_product(x, weight, bias, [30, 5, 15]))),
        torch.nn.functional.linear(x, weight, bias).t(),
    )
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    got_grads = torch.autograd.grad(got, (x, weight, bias), grad)
    want_grads = torch.autograd.grad(want, (x, weight, bias), grad)
    for got_grad, want_grad in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(got_grad, want_grad, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("kernel")
def test_an_input_that_needs_no_gradient_gets_none():
    x, weight, bias = torch.randn(8, 4), torch.randn(6, 4, requires_grad=True), torch.zeros(6)
    wide.wide_product(x, weight, bias, [6])[0].sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, x.sum(dim=0).expand(6, 4))
