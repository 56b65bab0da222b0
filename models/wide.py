"""The widest product of a top, weight @ x.T + bias, on the fastest kernel that this machine has for it.

On a CPU in FP32, torch sends matrix products to MKL, which on processors of other makers than Intel runs at half the
speed of oneDNN, the library that torch itself uses for BF16 (measured on an AMD Zen 5: 90 against 160-210 GFLOP/s a
core). So there this product calls torch's oneDNN operator; everywhere else it is a plain torch.addmm.

Shapes: B batch, D input width, W output width.
"""

from typing import Any

import torch
from torch import Tensor

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

_SMALLEST = 1 << 24  # multiplications from which the faster kernel outweighs the dearer call


def wide_product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [B, D], weight [W, D], bias [W] -> columns [W, B]."""
    if _prefers_onednn(x, weight):
        return _OneDnnProduct.apply(x, weight, bias)  # pyright: ignore[reportReturnType]
    return torch.addmm(bias.unsqueeze(1), weight, x.t())


def _prefers_onednn(x: Tensor, weight: Tensor) -> bool:
    if not _HAS_ONEDNN or torch.compiler.is_compiling() or not isinstance(x, Tensor):
        return False  # an exported program must run on other machines, a traced one too
    if not x.is_cpu or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    return x.shape[0] * weight.numel() >= _SMALLEST


class _OneDnnProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _times_transposed(weight, x).add_(bias.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = _times_transposed(weight.t(), grad.t()).t() if ctx.needs_input_grad[0] else None
        return grad_x, _times_transposed(grad, x.t()), grad.sum(dim=1)


def _times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] @ b.T for b [N, K], in any strides."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
