"""PCGrad: where two tasks' gradients conflict, each gives up the part that goes against the other.

Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", on the gradients where tasks fork (`models.fork`), of the
losses weighted by `tasks.<name>.weight`. The paper visits the other tasks in random order; here task i visits
i + 1, i + 2, ... in a circle, so that every rank and every repetition of a run does the same.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from configs.choice_settings import ChoiceSettings
from configs.schema import TaskConfig
from models.balancing import Balance

COMBINES = True


class PCGrad(Balance):
    @torch.no_grad()
    def combine(self, gram: Tensor) -> Tensor:
        # Row i of `parts` writes task i's projected gradient as a sum of the tasks' own gradients.
        tasks = torch.arange(len(gram), device=gram.device)
        parts = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        squares = gram.diagonal().clamp_min(torch.finfo(gram.dtype).tiny)
        for shift in range(1, len(gram)):
            others = (tasks + shift) % len(gram)
            products = (parts @ gram)[tasks, others]
            parts[tasks, others] -= products.clamp_max(0) / squares[others]
        return parts.sum(dim=0)


def build(settings: ChoiceSettings, tasks: Mapping[str, TaskConfig]) -> PCGrad:
    return PCGrad(tasks)
