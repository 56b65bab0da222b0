"""The fork: the last values that tasks share on the way forward, where their gradients meet on the way back.

Forward, a fork mixes experts for every task, or hands every task the same values. Backward, it knows each task's
gradient with respect to what is shared, without a backward pass a task: everything behind the fork belongs to one task
only. Methods that compare the tasks' gradients (PCGrad, CAGrad, GradNorm) need their inner products alone, a T x T
matrix that is a sum over rows and so a sum over ranks; what they return is a factor for each task's gradient. That
makes them exact over any number of ranks for one small all-reduce. The gradients are those of the shared *values*
rather than of the shared parameters, as in Sener & Koltun 2018, "Multi-Task Learning as Multi-Objective Optimization"
(MGDA-UB). Towers, gates and a task's own experts keep their own gradients.

Shapes: B batch, T tasks, E experts, H width of what is shared.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import UserError
from models.balancing import Balance

Combine = Callable[[Tensor], Tensor]
ReduceSum = Callable[[Tensor], Tensor]


class Fork(nn.Module):
    """Where the tasks of a top part. While `combine` is None, their gradients are simply summed."""

    def __init__(self) -> None:
        super().__init__()
        self.combine: Combine | None = None


class MixFork(Fork):
    """Gates [B, T, E], rows of experts [E, B, H] -> each task's mixture, rows [T, B, H].

    The first `private` experts belong to one task each: they are mixed, but not shared.
    """

    def __init__(self, private: int = 0) -> None:
        super().__init__()
        self.private = private

    def forward(self, gates: Tensor, experts: Tensor) -> Tensor:
        if self.combine is None:
            return mix(gates, experts)
        gates = gates.to(experts.dtype)
        return _Mix.apply(gates, experts, self.private, self.combine)  # pyright: ignore[reportReturnType]


class Mix(nn.Module):
    """The same function where tasks do not part."""

    def forward(self, gates: Tensor, experts: Tensor) -> Tensor:
        return mix(gates, experts)


class CopyFork(Fork):
    """x [B, H] -> rows [T, B, H], the same for every task."""

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks

    def forward(self, x: Tensor) -> Tensor:
        if self.combine is None:
            return x.expand(self.num_tasks, -1, -1)
        return _Copies.apply(x, self.num_tasks, self.combine)  # pyright: ignore[reportReturnType]


def mix(gates: Tensor, experts: Tensor) -> Tensor:
    """Weighted sums of experts: gates [B, G, E], rows of experts [E, B, H] -> rows [G, B, H]."""
    return torch.bmm(gates.to(experts.dtype), experts.transpose(0, 1)).transpose(0, 1)


def attach(balance: Balance, top: nn.Module, reduce_sum: ReduceSum = lambda x: x) -> None:
    """Let `balance` combine the gradients of `top`'s tasks, if it is a balance that does.

    `reduce_sum` sums a tensor over all ranks. Call it before training starts, on every rank; backward passes then
    run one collective for every fork.

    Raises:
        UserError: the tasks of this top share nothing.
    """
    if not balance.combines_gradients:
        return
    forks = [module for module in top.modules() if isinstance(module, Fork)]
    if not forks:
        name = type(balance).__name__
        raise UserError(
            f"training.task_balance: {name} balances the gradients that tasks share, but {type(top).__name__} shares "
            "none\nChoose another model.top, or task_balance: fixed, uncertainty or dwa."
        )
    for fork in forks:
        fork.combine = lambda gram: balance.combine(reduce_sum(gram))


@contextlib.contextmanager
def uncombined(top: nn.Module) -> Iterator[None]:
    """Leave the tasks' gradients as they are in the graphs built inside."""
    forks = {module: module.combine for module in top.modules() if isinstance(module, Fork)}
    for fork in forks:
        fork.combine = None
    try:
        yield
    finally:
        for fork, combine in forks.items():
            fork.combine = combine


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, experts: Tensor, private: int, combine: Combine) -> Tensor:
        ctx.save_for_backward(gates, experts)
        ctx.private, ctx.combine = private, combine
        return mix(gates, experts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gates, experts = ctx.saved_tensors
        grad = grad.transpose(0, 1)  # [B, T, H]
        shared, rows = gates[..., ctx.private :].float(), grad.float()
        # Task t's gradient at expert e of row b is gates[b, t, e] * grad[b, t]: the inner products factor.
        gram = (torch.bmm(shared, shared.mT) * torch.bmm(rows, rows.mT)).sum(dim=0)
        factors = ctx.combine(gram).to(gates.dtype)
        own, shared = gates.split([ctx.private, gates.shape[2] - ctx.private], dim=2)
        weights = torch.cat([own, shared * factors.view(1, -1, 1)], dim=2)
        grad_experts = torch.bmm(weights.mT, grad).transpose(0, 1)
        return torch.bmm(grad, experts.permute(1, 2, 0)), grad_experts, None, None


class _Copies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int, combine: Combine) -> Tensor:
        ctx.combine = combine
        return x.expand(count, -1, -1).clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows = grad.flatten(1).float()
        factors = ctx.combine(rows @ rows.T).to(grad.dtype)
        return torch.tensordot(factors, grad, dims=1), None, None
