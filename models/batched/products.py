"""Matrix products on the faster of the kernels that torch has for this machine.

On a CPU in FP32, torch sends matrix products to its BLAS, which is MKL on x86. On processors of other makers than
Intel, MKL runs at half the speed of oneDNN, the library that torch itself uses for BF16 (measured on an AMD Zen 5: 90
against 160-210 GFLOP/s per core, from a batch of 128 up); on Intel's it is a little faster.
"""

import torch
from torch import Tensor

from configs.formulations import fastest

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [M, K] @ b.T for b [N, K], in any strides, plus bias [M] in every column -> [M, N]. No gradient of its own."""
    if not (_HAS_ONEDNN and a.dtype == torch.float32 and a.device.type == "cpu"):
        return _by_blas(a, b, bias)
    strides = "".join("n" if matrix.stride(1) == 1 else "t" for matrix in (a, b))
    shape = f"{len(a)}x{a.shape[1]}x{len(b)}"
    return fastest(f"product of {shape} {strides}", {"blas": _by_blas, "onednn": _by_onednn}, a, b, bias)(a, b, bias)


def _by_blas(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(a, b.t()) if bias is None else torch.addmm(bias.unsqueeze(1), a, b.t())


def _by_onednn(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    # It copies its first operand unless that is contiguous, so let it be the smaller one.
    goes_first = a.is_contiguous() or a.numel() < b.numel()
    result = _onednn(a, b) if goes_first else _onednn(b, a).t().contiguous()
    return result if bias is None else result.add_(bias.unsqueeze(1))


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
