"""Dynamic weight average: tasks whose loss falls slowly get more weight than tasks whose loss falls fast.

Liu et al. 2019, "End-to-End Multi-Task Learning with Attention". The rate of a task is its mean loss over one log
interval, divided by that over the interval before; weights are a softmax of the rates over `temperature`, times the
number of tasks, times `tasks.<name>.weight`. Uniform until two intervals have been seen.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from configs.choice_settings import ChoiceSettings
from configs.schema import TaskConfig
from configs.section import PositiveFloat
from models.balancing import Balance


class Settings(ChoiceSettings):
    temperature: PositiveFloat = Field(
        default=2.0,
        description="High makes the tasks' weights more alike, low lets the slowest task take all; the paper uses 2.",
    )


class DynamicWeightAverage(Balance):
    def __init__(self, settings: Settings, tasks: Mapping[str, TaskConfig]) -> None:
        super().__init__(tasks)
        self.temperature = settings.temperature
        self.register_buffer("previous_losses", torch.full((len(tasks),), float("nan")))
        self.register_buffer("factors", torch.ones(len(tasks)))
        self.previous_losses: Tensor
        self.factors: Tensor

    def weights(self) -> Tensor:
        return self.config_weights * self.factors

    @torch.no_grad()
    def observe(self, mean_losses: Tensor) -> None:
        losses = mean_losses.to(self.previous_losses)
        active = self.config_weights > 0
        rates = torch.nan_to_num(losses / self.previous_losses, nan=1.0, posinf=1.0)
        rates = rates.masked_fill(~active, float("-inf"))
        factors = torch.softmax(rates / self.temperature, dim=0) * active.sum()
        self.factors.copy_(torch.where(active, factors, 1.0))
        self.previous_losses.copy_(torch.where(losses.isnan(), self.previous_losses, losses))


def build(settings: Settings, tasks: Mapping[str, TaskConfig]) -> DynamicWeightAverage:
    return DynamicWeightAverage(settings, tasks)
