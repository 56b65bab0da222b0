"""Products are the same on every kernel, for operands in any strides."""

import pytest
import torch

from models.batched import products


@pytest.mark.parametrize("kernel", ["blas", "onednn"])
@pytest.mark.parametrize("a_strided", [False, True])
@pytest.mark.parametrize("b_strided", [False, True])
@pytest.mark.parametrize(("m", "n"), [(3, 50), (50, 3)])
def test_a_product_is_a_product(m, n, a_strided, b_strided, kernel, monkeypatch):
    monkeypatch.setattr(products, "fastest", lambda what, ways, *_: ways[kernel])
    torch.manual_seed(0)
    a = torch.randn(20, m).t() if a_strided else torch.randn(m, 20)
    b = torch.randn(20, n).t() if b_strided else torch.randn(n, 20)
    bias = torch.randn(m)
    want = a.double() @ b.double().t()
    assert products.product(a, b).is_contiguous()
    torch.testing.assert_close(products.product(a, b), want.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(products.product(a, b, bias), (want + bias.unsqueeze(1)).float(), rtol=1e-5, atol=1e-5)
