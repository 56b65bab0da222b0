"""Uncertainty weighting: every task's weight is learned, from how noisy the task turns out to be.

Kendall et al. 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses": weight exp(-s) and a price of s / 2 for
every labelled row of a task, s being the task's learned log-variance. (With a price paid without labels too, the weight
of a task whose labels come later would grow without end.) Starts as `fixed`; `tasks.<name>.weight` stays a factor.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from configs.choice_settings import ChoiceSettings
from configs.schema import TaskConfig
from models.balancing import Balance


class Uncertainty(Balance):
    """Adds the parameter `log_variances` [T] to the model; the dense optimizer trains it."""

    def __init__(self, tasks: Mapping[str, TaskConfig]) -> None:
        super().__init__(tasks)
        self.log_variances = nn.Parameter(torch.zeros(len(tasks)))

    def weights(self) -> Tensor:
        return self.config_weights * torch.exp(-self.log_variances)

    def forward(self, task_losses: Tensor, labelled: Tensor) -> Tensor:
        price = 0.5 * (self.config_weights * labelled * self.log_variances).sum()
        return super().forward(task_losses, labelled) + price


def build(settings: ChoiceSettings, tasks: Mapping[str, TaskConfig]) -> Uncertainty:
    return Uncertainty(tasks)
