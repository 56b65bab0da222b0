"""Calls an operation whose derivative is written by hand: torch.autograd.Function.apply, for less.

torch first looks through all arguments for what torch.func wraps, which nobody does here: a twentieth of a small top's
step.
"""

from typing import Any

from torch.autograd import Function


def apply(function: type[Function], *arguments: Any) -> Any:
    """What `function.apply(*arguments)` returns."""
    return super(Function, function).apply(*arguments)  # pyright: ignore[reportAttributeAccessIssue]
