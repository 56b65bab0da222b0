"""Task balancing: how the losses of several tasks become one, and how their gradients meet in what they share.

A balance is a module of models/balance with `build(tasks, **options) -> Balance`. It sits in the training objective, so
its parameters are trained and its buffers saved with the model. Ranks agree by construction: gradients of parameters
are averaged over ranks, and everything else follows from numbers that were summed over ranks before the balance sees
them. How gradients are met and combined in the top is `models.fork`.

Shapes: T tasks.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from configs import choices
from configs.errors import UserError
from configs.schema import TaskConfig


class Balance(nn.Module):
    """(task losses [T], labelled [T]) -> the loss to minimize []: here, losses weighted by `tasks.<name>.weight`.

    Task losses are this rank's, on a scale whose mean over ranks is the mean over the global batch; `labelled` is on
    the same scale the share of rows that the task has a label for, label weights counted. A task of weight 0 is only
    watched: it must get no say in any method. Nor may one without a labelled row move its own weight or another's.
    """

    def __init__(self, tasks: Mapping[str, TaskConfig]) -> None:
        super().__init__()
        weights = torch.tensor([task.weight for task in tasks.values()])
        self.register_buffer("config_weights", weights, persistent=False)
        self.config_weights: Tensor

    def weights(self) -> Tensor:
        """The factor of each task's loss at this moment [T]; differentiable where it is learned. For logs: detach."""
        return self.config_weights

    def forward(self, task_losses: Tensor, labelled: Tensor) -> Tensor:
        return (self.weights() * task_losses).sum()

    def observe(self, mean_losses: Tensor) -> None:
        """Take note of each task's mean loss [T] over all rows and ranks since the last call.

        The trainer calls it whenever it logs, with the same numbers on every rank. A task without a row is NaN.
        """

    @property
    def combines_gradients(self) -> bool:
        """Whether the tasks' gradients must be handed to `combine` before they meet in the shared part."""
        return type(self).combine is not Balance.combine

    def combine(self, gram: Tensor) -> Tensor:
        """Inner products of the tasks' gradients [T, T] over the global batch -> factors of these gradients [T].

        Called in every backward pass, if overridden. `gram` is right up to one positive factor.
        """
        return torch.ones_like(gram[0])


def build_balance(name: str, tasks: Mapping[str, TaskConfig], options: Mapping[str, Any] | None = None) -> Balance:
    """The balance that `training.task_balance` names, with `training.task_balance_options`.

    Raises:
        UserError: models/balance has no such module, or it has no such option.
    """
    build: Callable[..., Balance] = choices.load("models.balance", name).build
    known = list(inspect.signature(build).parameters)[1:]
    for key in options or {}:
        if key not in known:
            has = choices.did_you_mean(key, known) if known else "this one has none"
            raise UserError(f"training.task_balance_options.{key} is not an option of {name!r}\n{has}")
    return build(tasks, **(options or {}))
