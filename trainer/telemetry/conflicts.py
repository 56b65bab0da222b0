"""Samples during training how far the tasks agree about what they share, for TensorBoard.

What is measured, and what its numbers mean, is in `models.conflict`.
"""

import math
from itertools import combinations
from typing import Any

from torch import Tensor, nn

from models.conflict import task_gradient_cosines
from models.criterion import Criterion
from trainer.ranker import Outputs
from trainer.ranks.collectives import sum_over_ranks


class ConflictSampler:
    """Every `every` steps (0: never), on all ranks: the cosine between the gradients of each pair of tasks."""

    def __init__(self, top: nn.Module, criterion: Criterion, tasks: list[str], every: int) -> None:
        self._top, self._criterion = top, criterion
        self._tasks, self._every = tasks, every if len(tasks) > 1 else 0
        self._inputs: Tensor | None = None
        if self._every:
            self._top.register_forward_pre_hook(self._keep)

    def after(self, step: int, outputs: Outputs) -> dict[str, float]:
        """Tag -> cosine of the step just done; nothing when none is due. Waits for the device when one is."""
        inputs, self._inputs = self._inputs, None
        if not self._every or step % self._every or inputs is None:
            return {}
        cosines = task_gradient_cosines(
            self._top, self._criterion, inputs, outputs.labels, outputs.weights, reduce_sum=sum_over_ranks
        ).tolist()
        self._inputs = None  # of the measurement itself
        pairs = combinations(range(len(self._tasks)), 2)
        found = {f"gradient_cosine/{self._tasks[i]}-{self._tasks[j]}": cosines[i][j] for i, j in pairs}
        return {tag: cosine for tag, cosine in found.items() if math.isfinite(cosine)}

    def _keep(self, top: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._inputs = arguments[0].detach()
