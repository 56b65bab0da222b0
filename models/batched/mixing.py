"""Mixing experts by gates, and its derivative.

A row of the batch is mixed by a product of its own, [G, E] @ [E, H]: far too little work for a call of a matrix
product, even a batched one. Which way is fastest depends on the shape and the processor:

- `at once`, one multiplication and one sum over everything: few calls, for small batches.
- `by pairs`, of a gate and an expert: multiplied and added in place, in the columns that experts come in.
- `by rows`: batched products, for which a row's values must first lie side by side. On a GPU, and for many experts.

Shapes: G gates, E experts, H width of an expert's output, B batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from configs.formulations import fastest
from models.batched.apply import apply
from models.batched.parallel import is_traced

Reweigh = Callable[[Tensor, Tensor], Tensor]
Way = Callable[[Tensor, Tensor], Tensor]

_FEW = 1 << 17  # multiplications up to which calls cost more than what they do


def mix(gates: Tensor, experts: Tensor, reweigh: Reweigh | None = None) -> Tensor:
    """Weighted sums of experts: gates [G, E, B], columns of experts [E, H, B] -> columns [G, H, B].

    `reweigh` (gates, the mixtures' gradient [G, H, B]) -> the gates by which that gradient goes back to the experts;
    without it they are the same.
    """
    gates = gates.to(experts.dtype)
    if reweigh is None and is_traced(experts):
        return _at_once(gates, experts)
    return apply(_Mix, gates, experts, reweigh)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, experts: Tensor, reweigh: Reweigh | None) -> Tensor:
        ctx.reweigh = reweigh
        ctx.save_for_backward(gates, experts)
        return _mixture(gates, experts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        gates, experts = ctx.saved_tensors
        back = gates if ctx.reweigh is None else ctx.reweigh(gates, grad)
        return _inner_products(grad, experts), _mixture(back.transpose(0, 1), grad), None


def _mixture(gates: Tensor, experts: Tensor) -> Tensor:
    ways = {"by pairs": _by_pairs, "by rows": _by_rows}
    return _way("mixture", _at_once, ways, gates, experts)(gates, experts)


def _inner_products(grad: Tensor, experts: Tensor) -> Tensor:
    """The gates' gradient [G, E, B]: of the mixtures' gradient [G, H, B] and experts [E, H, B]."""
    ways = {"by pairs": _inner_by_pairs, "by rows": _inner_by_rows}
    return _way("inner products", _inner_at_once, ways, grad, experts)(grad, experts)


def _way(what: str, few: Way, many: dict[str, Way], a: Tensor, b: Tensor) -> Way:
    if len(a) * b.numel() <= _FEW:
        return few
    if b.device.type != "cpu":  # where a call costs more than what it does
        return many["by rows"]
    shape = "x".join(str(size) for size in (len(a), *b.shape))
    return fastest(f"{what} of {shape} {b.dtype}", many, a, b)


def _at_once(gates: Tensor, experts: Tensor) -> Tensor:
    return (gates.unsqueeze(2) * experts).sum(dim=1)


def _by_pairs(gates: Tensor, experts: Tensor) -> Tensor:
    mixtures = experts.new_empty(len(gates), *experts.shape[1:])
    for mixture, weights in zip(mixtures.unbind(), gates.unbind(), strict=True):
        first, *others = zip(experts.unbind(), weights.unbind(), strict=True)
        torch.mul(*first, out=mixture)
        for expert, weight in others:
            mixture.addcmul_(expert, weight)
    return mixtures


def _by_rows(gates: Tensor, experts: Tensor) -> Tensor:
    return _columns(torch.bmm(_rows(gates), _rows(experts)))


def _inner_at_once(grad: Tensor, experts: Tensor) -> Tensor:
    return (grad.unsqueeze(1) * experts).sum(dim=2)


def _inner_by_pairs(grad: Tensor, experts: Tensor) -> Tensor:
    inner = grad.new_empty(len(grad), len(experts), grad.shape[2])
    products = torch.empty_like(experts[0])
    for row, mixture in zip(inner.unbind(), grad.unbind(), strict=True):
        for target, expert in zip(row.unbind(), experts.unbind(), strict=True):
            torch.sum(torch.mul(mixture, expert, out=products), dim=0, out=target)
    return inner


def _inner_by_rows(grad: Tensor, experts: Tensor) -> Tensor:
    return _columns(torch.bmm(_rows(grad), _rows(experts).mT))


def _rows(columns: Tensor) -> Tensor:
    """[N, W, B] -> [B, N, W]; of all the ways to say so, torch is quick at transposing matrices."""
    return columns.flatten(0, 1).t().contiguous().unflatten(1, columns.shape[:2])


def _columns(rows: Tensor) -> Tensor:
    """The inverse of `_rows`."""
    return rows.flatten(1).t().contiguous().unflatten(0, rows.shape[1:])
