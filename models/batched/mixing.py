"""Mixing experts by gates, and its derivative.

A row of the batch is mixed by a product of its own, [G, E] @ [E, H]. Few of them are fastest as multiplications and
sums in the columns that experts come in; many are batched products, for which a row's values must lie side by side.

Shapes: G gates, E experts, H width of an expert's output, B batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.batched.parallel import is_traced

Reweigh = Callable[[Tensor, Tensor], Tensor]

_FEW = 1 << 17  # multiplications below which rows are not worth laying side by side


def mix(gates: Tensor, experts: Tensor, reweigh: Reweigh | None = None) -> Tensor:
    """Weighted sums of experts: gates [G, E, B], columns of experts [E, H, B] -> columns [G, H, B].

    `reweigh` (gates, the mixtures' gradient [G, H, B]) -> the gates by which that gradient goes back to the experts;
    without it they are the same.
    """
    gates = gates.to(experts.dtype)
    if reweigh is None and is_traced(experts):
        return _sum_over(gates.unsqueeze(2), experts, 1)
    return _Mix.apply(gates, experts, reweigh)  # pyright: ignore[reportReturnType]


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, experts: Tensor, reweigh: Reweigh | None) -> Tensor:
        ctx.reweigh = reweigh
        ctx.few = len(gates) * experts.numel() < _FEW
        if ctx.few:
            ctx.save_for_backward(gates, experts)
            return _sum_over(gates.unsqueeze(2), experts, 1)
        rows = _rows(experts)
        ctx.save_for_backward(gates, rows)
        return _columns(torch.bmm(_rows(gates), rows))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        gates, experts = ctx.saved_tensors
        back = gates if ctx.reweigh is None else ctx.reweigh(gates, grad)
        if ctx.few:
            grad_experts = _sum_over(back.unsqueeze(2), grad.unsqueeze(1), 0)
            return _sum_over(grad.unsqueeze(1), experts, 2), grad_experts, None
        grad = _rows(grad)
        return _columns(torch.bmm(grad, experts.mT)), _columns(torch.bmm(_rows(back).mT, grad)), None


def _sum_over(a: Tensor, b: Tensor, dim: int) -> Tensor:
    return (a * b).sum(dim=dim)


def _rows(columns: Tensor) -> Tensor:
    """[N, W, B] -> [B, N, W]; of all the ways to say so, torch is quick at transposing matrices."""
    return columns.flatten(0, 1).t().contiguous().unflatten(1, columns.shape[:2])


def _columns(rows: Tensor) -> Tensor:
    """The inverse of `_rows`."""
    return rows.flatten(1).t().contiguous().unflatten(0, rows.shape[1:])
