"""Adam for the dense parameters on a CPU: torch's fused kernel, without what torch.optim does around it.

A small top has a few dozen small parameters, and torch.optim.Adam spends four fifths of a step counting steps one
parameter at a time and sorting parameters by device, and half as much again for those who watch it. Here they share one
count. Values, state and its names are those of torch.optim.Adam(fused=True), bit for bit.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, optim


class CpuAdam(optim.Adam):
    """torch.optim.Adam, or AdamW with `decoupled_weight_decay`, for parameters on the CPU with one count of steps.

    A parameter without a gradient is left as it is, but its count goes on.
    """

    def __init__(self, params: Any, **arguments: Any) -> None:
        """The arguments of torch.optim.Adam, of which `amsgrad` and the choice of implementation are not offered."""
        super().__init__(params, fused=True, **arguments)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert closure is None, "the trainer computes gradients once a step"
        for group in self.param_groups:
            self._step_group(group)

    # torch.optim wraps `step` in hooks and notes for profilers, which take as long as the kernel; this says it is done.
    step.hooked = True  # pyright: ignore[reportFunctionMemberAccess]

    def zero_grad(self, set_to_none: bool = True) -> None:
        if not set_to_none:
            super().zero_grad(set_to_none)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _step_group(self, group: dict[str, Any]) -> None:
        params = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not params:
            return
        if any(parameter not in self.state for parameter in params):
            self._init_group(group, *([] for _ in range(6)))
        states = [self.state[parameter] for parameter in params]
        count = self._shared_count(group, states[0]["step"])
        count.add_(1)
        name = "_fused_adamw_" if group["decoupled_weight_decay"] else "_fused_adam_"
        kernel = getattr(torch, name)  # torch keeps them to itself, and torch.ops.aten's are slower to call
        kernel(
            params,
            [parameter.grad for parameter in params],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [count] * len(params),
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=group["maximize"],
        )

    def _shared_count(self, group: dict[str, Any], count: Tensor) -> Tensor:
        """The count that all of the group's states hold; state that was created or loaded has a count each."""
        states = [self.state[parameter] for parameter in group["params"] if parameter in self.state]
        if any(state["step"] is not count for state in states):
            count = torch.stack([state["step"] for state in states]).max()
            for state in states:
                state["step"] = count
        return count
