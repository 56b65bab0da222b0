"""The widest product of a top, weight @ x.T + bias, and its gradients, on the fastest kernel for this machine.

The rows of the weight belong to several families of networks, whose gradients autograd would first copy together; here
each takes its part in the product on its own. On a CPU in FP32, torch sends matrix products to
MKL, which on processors of other makers than Intel runs at half the speed of oneDNN, the library that torch itself uses
for BF16 (measured on an AMD Zen 5: 90 against 160-210 GFLOP/s a core); so there they go to torch's oneDNN operator.

Shapes: B batch, D input width, W output width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_SMALL = 1 << 18  # numbers in a layer's output below which calls cost more than products and copies
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_plain(x: Tensor, growth: float) -> bool:
    """Whether a layer whose output has `growth` numbers for each of x should be left to autograd as it is.

    So it should if it is small, and for compilers and exports, which make their own plans.
    """
    return torch.compiler.is_compiling() or not isinstance(x, Tensor) or x.numel() * growth < _SMALL


def wide_product(x: Tensor, weight: Tensor, bias: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    """x [B, D], weight [W, D], bias [W] -> columns [size, B] for each of `sizes`, which add up to W."""
    if is_plain(x, weight.shape[0] / weight.shape[1]):
        return torch.addmm(bias.unsqueeze(1), weight, x.t()).split(list(sizes))
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    onednn = _HAS_ONEDNN and device == "cpu" and x.dtype == torch.float32
    return _WideProduct.apply(x, weight, bias, list(sizes), onednn)  # pyright: ignore[reportReturnType]


class _WideProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, sizes: list[int], onednn: bool
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, weight)
        ctx.sizes, ctx.onednn = sizes, onednn
        product = _onednn(weight, x) if onednn else torch.mm(weight, x.t())
        return product.add_(bias.unsqueeze(1)).split(sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        grad_weight, grad_bias = torch.empty_like(weight), weight.new_empty(len(weight))
        grad_x = None
        parts = (grads, weight.split(ctx.sizes), grad_weight.split(ctx.sizes), grad_bias.split(ctx.sizes))
        for grad, rows, grad_rows, grad_biases in zip(*parts, strict=True):
            torch.sum(grad, dim=1, out=grad_biases)
            if ctx.onednn:
                grad_rows.copy_(_onednn(grad, x.t()))
            else:
                torch.mm(grad, x, out=grad_rows)
            if ctx.needs_input_grad[0]:
                more = _onednn(rows.t(), grad.t()).t() if ctx.onednn else torch.mm(grad.t(), rows)
                grad_x = more if grad_x is None else grad_x.add_(more)
        return grad_x, grad_weight, grad_bias, None, None


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] @ b.T for b [N, K], in any strides."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
