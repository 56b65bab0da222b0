"""From logits to predictions, and to one loss a task.

Weighting tasks against each other is left to models/balance; dividing by a batch size that all ranks agree on to the
trainer.

Shapes: B batch, T tasks, N tasks with one and the same loss.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from configs import choices
from configs.choice_settings import settings_of
from configs.errors import UserError
from configs.schema import TaskConfig
from models.batched.grouping import Grouping
from models.losses import LossModule, RowLoss


class Criterion(nn.Module):
    """(logits, labels, weights), each [B, T] -> task losses [T]: the sum over rows of weight * loss, in float32.

    A row of weight 0 counts nothing for that task, whatever finite label it carries. Not divided by anything, so that
    sums of several ranks add up. Tasks are in the order of the config.

    Raises:
        UserError: no such loss, a setting that the loss does not have, or a funnel of tasks that are no events.
    """

    def __init__(self, tasks: Mapping[str, TaskConfig]) -> None:
        super().__init__()
        kinds = [(_output(task), task.loss, repr(sorted(task.options.items()))) for task in tasks.values()]
        self._by_output = Grouping([output for output, _, _ in kinds])
        self._by_loss = Grouping(kinds)
        self.binary = frozenset(name for name, (output, _, _) in zip(tasks, kinds, strict=True) if output == "sigmoid")
        """Tasks whose predictions are probabilities."""
        for name, task in tasks.items():
            if task.parent is not None and not {name, task.parent} <= self.binary:
                raise UserError(
                    f"tasks.{name}.parent is {task.parent!r}, but the two do not both predict probabilities\n"
                    "A funnel is of events: give both a loss of probabilities, or output: sigmoid."
                )
        by_kind = dict(zip(kinds, tasks.items(), strict=True))
        names = list(tasks)
        self._ordered = [
            (names.index(name), names.index(task.parent), task.order_penalty)
            for name, task in tasks.items()
            if task.parent is not None and task.relation == "aitm" and task.order_penalty
        ]
        self._losses = [_row_loss(*by_kind[kind]) for kind in self._by_loss.keys]

    def forward(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        parts = (self._by_loss.split(x.float(), dim=1) for x in (logits, labels, weights))
        sums = [
            (weight * loss(logit, label)).sum(dim=0)
            for loss, logit, label, weight in zip(self._losses, *parts, strict=True)
        ]
        losses = self._by_loss.join(sums, dim=0)
        return losses + self._order_penalties(logits, weights) if self._ordered else losses

    def _order_penalties(self, logits: Tensor, weights: Tensor) -> Tensor:
        """[T]: AITM's calibrator, what a child's probability exceeds its parent's by, at the child's price."""
        predictions = self.predict(logits).unbind(dim=1)
        penalties = [weights.new_zeros(()) for _ in predictions]
        for child, parent, price in self._ordered:
            excess = torch.relu(predictions[child] - predictions[parent])
            penalties[child] = price * (weights[:, child] * excess).sum()
        return torch.stack(penalties)

    def predict(self, logits: Tensor) -> Tensor:
        """Logits [B, T] -> predictions [B, T] in float32: probabilities for tasks with a sigmoid output."""
        parts = self._by_output.split(logits.float(), dim=1)
        predictions = [_apply(output, part) for output, part in zip(self._by_output.keys, parts, strict=True)]
        return self._by_output.join(predictions, dim=1)


def _output(task: TaskConfig) -> str:
    return choices.load("models.losses", task.loss).OUTPUT if task.output == "auto" else task.output


def _apply(output: object, logits: Tensor) -> Tensor:
    return torch.sigmoid(logits) if output == "sigmoid" else logits


def _row_loss(name: str, task: TaskConfig) -> RowLoss:
    """(logits, labels), [B, N] -> the loss of every row [B, N]."""
    module = choices.load("models.losses", task.loss)
    kind = cast(LossModule, module)
    loss = kind.build(settings_of(module, task.options, f"tasks.{name}.options"))
    if kind.INPUT == "logit":
        return loss
    output = _output(task)
    return lambda logits, labels: loss(_apply(output, logits), labels)
