"""Task balancing: how the losses of several tasks become one, and how their gradients meet in what they share.

The balances are modules of models/balance; this is what they have in common. One sits in the training objective, so its
parameters are trained and its buffers saved with the model. Ranks agree by construction: gradients of parameters are
averaged over ranks, and everything else follows from numbers that were summed over ranks before the balance sees them.
How gradients are met and combined in the top is `models.fork`.

Shapes: T tasks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

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
