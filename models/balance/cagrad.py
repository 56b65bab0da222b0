"""CAGrad: the step near the mean gradient that helps the worst-off task most.

Liu et al. 2021, "Conflict-Averse Gradient Descent for Multi-task Learning", on the gradients where tasks fork
(`models.fork`), of the losses weighted by `tasks.<name>.weight`. The paper's inner problem, convex over the simplex of
tasks, is solved by moving weight from one task to another, by the best of many amounts at a time.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from configs.choice_settings import ChoiceSettings
from configs.schema import TaskConfig
from configs.section import NonNegativeFloat
from models.balancing import Balance

COMBINES = True

_STEPS = 40


class Settings(ChoiceSettings):
    c: NonNegativeFloat = Field(
        default=0.5,
        description="How far a step may be from the mean gradient, as a share of its length: 0 is plain training, "
        "below 1 it converges. Raise it while one task is still left behind.",
    )


class CAGrad(Balance):
    def __init__(self, settings: Settings, tasks: Mapping[str, TaskConfig]) -> None:
        super().__init__(tasks)
        self.c = settings.c

    @torch.no_grad()
    def combine(self, gram: Tensor) -> Tensor:
        active = (gram.diagonal() > 0).to(gram.dtype)
        count = active.sum().clamp_min(1)
        gram = gram / gram.diagonal().sum().clamp_min(torch.finfo(gram.dtype).tiny) * count
        mean = active / count
        radius = self.c * (mean @ gram @ mean).clamp_min(0).sqrt()
        w = _least(gram, gram @ mean, radius, mean)
        length = (w @ gram @ w).clamp_min(1e-12).sqrt()
        # The sum of the gradients is `count` times their mean; the paper's rescaling keeps the length of the step.
        factors = count * (mean + radius / length * w) / (1 + self.c**2)
        return torch.where(active > 0, factors, 1.0)


def _least(gram: Tensor, products: Tensor, radius: Tensor, start: Tensor) -> Tensor:
    """argmin over the simplex of w . products + radius * sqrt(w . gram . w); tasks of `start` 0 stay out."""
    count, w = len(gram), start
    eye = torch.eye(count, dtype=gram.dtype, device=gram.device)
    exchanges = (eye.unsqueeze(1) - eye.unsqueeze(0)) * (start > 0).view(-1, 1, 1)  # [to, from, T]
    shares = 0.5 ** torch.arange(12, dtype=gram.dtype, device=gram.device).view(-1, 1, 1, 1)
    for _ in range(_STEPS):
        tried = (w + shares * exchanges * w.view(1, 1, -1, 1)).flatten(0, 2)
        values = tried @ products + radius * ((tried @ gram) * tried).sum(dim=1).clamp_min(1e-12).sqrt()
        w = tried[values.argmin()]
    return w


def build(settings: Settings, tasks: Mapping[str, TaskConfig]) -> CAGrad:
    return CAGrad(settings, tasks)
