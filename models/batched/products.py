"""Matrix products on the fastest kernel that torch has for this machine.

On a CPU in FP32, torch sends matrix products to MKL, which on processors of other makers than Intel runs at half the
speed of oneDNN, the library that torch itself uses for BF16 (measured on an AMD Zen 5: 90 against 160-210 GFLOP/s a
core, from a batch of 128 up); so there they go to torch's oneDNN operator.
"""

import torch
from torch import Tensor

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [M, K] @ b.T for b [N, K], in any strides, plus bias [M] in every column -> [M, N]. No gradient of its own."""
    if not (_HAS_ONEDNN and a.dtype == torch.float32 and a.device.type == "cpu"):
        result = torch.mm(a, b.t())
    elif a.is_contiguous() or a.numel() < b.numel():
        result = _onednn(a, b)
    else:
        result = _onednn(b, a).t()  # it copies its first operand unless contiguous: let that be the smaller one
    return result if bias is None else result.add_(bias.unsqueeze(1))  # addmm would first copy the bias everywhere


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
