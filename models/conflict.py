"""How far tasks agree about what they share: cosines between their gradients, on a sample of a batch.

A cosine near 1 means two tasks want the same step, near 0 that they do not care about each other, below 0 that they
fight. This is a measurement beside training, one backward pass a task; methods that act on conflicts are in
models/balance.

Shapes: B batch, D width of the top's input, T tasks, P parameters.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.criterion import Criterion
from models.fork import uncombined


def task_gradient_cosines(
    top: nn.Module,
    criterion: Criterion,
    x: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    rows: int = 512,
    reduce_sum: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Cosines [T, T] between the tasks' gradients on the shared weights of `top`, over the first `rows` of all ranks.

    Shared is every single number that at least two tasks have a gradient for, so it holds for any top. A task without
    such a gradient (no labelled row, or nothing shared) has NaN. Leaves gradients, random state, mode and
    the task balance untouched.

    Args:
        top: run in evaluation mode, so without dropout and noise.
        x: input of the top [B, D]; labels, weights: [B, T].
        reduce_sum: sum of a tensor [T, P] over all ranks, which must all call this at the same step.
    """
    parameters = [parameter for parameter in top.parameters() if parameter.requires_grad]
    was_training = top.training
    top.eval()
    try:
        with torch.enable_grad(), uncombined(top):
            logits, _ = top.forward(x[:rows].detach())  # not compiled again for this shape
            losses = criterion(logits, labels[:rows], weights[:rows])
            local = torch.stack([_gradient(loss, parameters) for loss in losses.unbind()])
    finally:
        top.train(was_training)
    gradients = reduce_sum(local)
    shared = (gradients != 0).sum(dim=0) >= 2
    gradients = gradients * shared
    norms = gradients.norm(dim=1)
    return (gradients @ gradients.T) / norms.outer(norms)


def _gradient(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """Flat gradient [P] in float32, zero where the loss does not depend on a parameter."""
    parts = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten().float() for part in parts])
