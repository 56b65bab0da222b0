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
from models.batched.mixing import mix

Combine = Callable[[Tensor], Tensor]
ReduceSum = Callable[[Tensor], Tensor]


class Fork(nn.Module):
    """Where the tasks of a top part. While `combine` is None, their gradients are simply summed."""

    def __init__(self) -> None:
        super().__init__()
        self.combine: Combine | None = None


class MixFork(Fork):
    """Gates [T, E, B], columns of experts [E, H, B] -> each task's mixture, columns [T, H, B].

    The first `private` experts belong to one task each: they are mixed, but not shared.
    """

    def __init__(self, private: int = 0) -> None:
        super().__init__()
        self.private = private

    def forward(self, gates: Tensor, experts: Tensor) -> Tensor:
        return mix(gates, experts, None if self.combine is None else self._reweigh)

    def _reweigh(self, gates: Tensor, grad: Tensor) -> Tensor:
        """Gates by which the mixtures' gradient [T, H, B] goes back: the shared experts' times the tasks' factors."""
        assert self.combine is not None
        # Task t's gradient at expert e of row b is gates[t, e, b] * grad[t, :, b]: the inner products factor.
        own, shared = gates[:, : self.private], gates[:, self.private :]
        of_gates, of_grads = (x.float().permute(2, 0, 1) for x in (shared, grad))  # [B, T, E], [B, T, H]
        gram = (torch.bmm(of_gates, of_gates.mT) * torch.bmm(of_grads, of_grads.mT)).sum(dim=0)
        factors = self.combine(gram).to(gates.dtype)
        return torch.cat([own, shared * factors.view(-1, 1, 1)], dim=1)


class Mix(nn.Module):
    """The same function where tasks do not part."""

    def forward(self, gates: Tensor, experts: Tensor) -> Tensor:
        return mix(gates, experts)


class CopyFork(Fork):
    """Columns [H, B] -> columns [T, H, B], the same for every task."""

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks

    def forward(self, x: Tensor) -> Tensor:
        if self.combine is None:
            return x.expand(self.num_tasks, -1, -1)
        return _Copies.apply(x, self.num_tasks, self.combine)  # pyright: ignore[reportReturnType]


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
