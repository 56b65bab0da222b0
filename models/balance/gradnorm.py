"""GradNorm: weights are steered until all tasks pull on the shared part with like force, laggards a little harder.

Chen et al. 2018, "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks". A task's
force is the norm of its weighted gradient where tasks fork (`models.fork`); its target is the mean force, times the
task's relative training rate (loss now / first loss, over the mean of all tasks) to the power `alpha`. Each backward
pass moves each weight one step toward the target and keeps their sum. Losses are taken note of once a log interval.
A task without a gradient in a batch, as one without labels, keeps its weight and has no say.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from configs.choice_settings import ChoiceSettings
from configs.schema import TaskConfig
from configs.section import NonNegativeFloat, PositiveFloat
from models.balancing import Balance

COMBINES = True

_LEAST_WEIGHT = 1e-3  # of a task's weight in the config: a task can be quieted, not lost


class Settings(ChoiceSettings):
    alpha: NonNegativeFloat = Field(
        default=1.5, description="0 gives all tasks equal force, more favours slow tasks; the paper uses 0.5 to 3."
    )
    learning_rate: PositiveFloat = Field(
        default=0.025, description="How far a weight moves in one step; lower it where the weights swing."
    )


class GradNorm(Balance):
    def __init__(self, settings: Settings, tasks: Mapping[str, TaskConfig]) -> None:
        super().__init__(tasks)
        self.alpha, self.learning_rate = settings.alpha, settings.learning_rate
        self.register_buffer("current_weights", self.config_weights.clone())
        self.register_buffer("first_losses", torch.full((len(tasks),), float("nan")))
        self.register_buffer("rates", torch.ones(len(tasks)))
        self.current_weights: Tensor
        self.first_losses: Tensor
        self.rates: Tensor

    def weights(self) -> Tensor:
        return self.current_weights.clone()  # the backward pass changes the buffer

    @torch.no_grad()
    def observe(self, mean_losses: Tensor) -> None:
        losses = mean_losses.to(self.first_losses)
        self.first_losses.copy_(torch.where(self.first_losses.isnan(), losses, self.first_losses))
        ratios = losses / self.first_losses
        active = (self.config_weights > 0) & ratios.isfinite()
        mean = _mean(ratios, active)
        self.rates.copy_(torch.where(active, ratios / mean, self.rates))

    @torch.no_grad()
    def combine(self, gram: Tensor) -> Tensor:
        forces = gram.diagonal().clamp_min(0).sqrt()  # of weighted losses
        active = (self.config_weights > 0) & (forces > 0)
        slopes = forces / self.current_weights.clamp_min(1e-12)
        targets = _mean(forces, active) * self.rates.clamp_min(0) ** self.alpha
        steps = torch.sign(forces - targets) * slopes / _mean(slopes, active).clamp_min(1e-30)
        moved = torch.maximum(self.current_weights - self.learning_rate * steps, _LEAST_WEIGHT * self.config_weights)
        total = self.config_weights.sum() - torch.where(active, 0.0, self.current_weights).sum()
        rescaled = moved * total / torch.where(active, moved, 0.0).sum()
        self.current_weights.copy_(torch.where(active, rescaled, self.current_weights))
        return torch.ones_like(forces)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, values, 0.0).sum() / where.sum().clamp_min(1)


def build(settings: Settings, tasks: Mapping[str, TaskConfig]) -> GradNorm:
    return GradNorm(settings, tasks)
