"""Funnels: tasks whose event needs another's first, such as impression -> click -> purchase.

Two relations to a parent task. ESMM (Ma et al. 2018, "Entire Space Multi-Task Model") multiplies probabilities, so the
child's tower learns the rate given the parent, from all rows and without the bias of training on clicked rows only.
AITM (Xi et al. 2021, "Modeling the Sequential Dependence among Audience Multi-step Conversions") hands the parent
tower's last hidden values to the child's, which decides by attention how much to take. Its calibrator, the price of
predicting more than the parent, is in `models.criterion`.

Shapes: B batch, T tasks, K width of a tower's last hidden layer.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from configs.errors import UserError
from configs.schema import TaskConfig

Tasks = Mapping[str, TaskConfig]


def chain(tasks: Tasks, name: str) -> list[str]:
    """The task, its parent, the parent's parent, ... up to the first event of its funnel.

    Raises:
        UserError: a parent is no task, or a task comes before itself.
    """
    found = [name]
    while (parent := tasks[found[-1]].parent) is not None:
        if parent not in tasks:
            raise UserError(f"tasks.{found[-1]}.parent is {parent!r}, which is no task\nTasks are: {', '.join(tasks)}.")
        if parent in found:
            raise UserError(
                f"tasks.{parent}.parent leads back to {parent} ({' -> '.join([*found, parent])})\n"
                "The first event of a funnel has no parent."
            )
        found.append(parent)
    return found


def _children(tasks: Tasks, relation: str) -> list[str]:
    """Tasks in this relation to their parent, parents before children."""
    names = [name for name, task in tasks.items() if task.parent is not None and task.relation == relation]
    return sorted(names, key=lambda name: len(chain(tasks, name)))


def _pairs(tasks: Tasks, children: list[str]) -> list[tuple[int, int]]:
    """(position of the child, position of its parent) of each."""
    names = list(tasks)
    return [(names.index(child), names.index(tasks[child].parent or "")) for child in children]


class EntireSpace(nn.Module):
    """ESMM: logits [B, T] of the towers -> logits [B, T] of the events themselves; in float32 if there is a child."""

    def __init__(self, tasks: Tasks) -> None:
        super().__init__()
        self.pairs = _pairs(tasks, _children(tasks, "esmm"))

    def forward(self, logits: Tensor) -> Tensor:
        if not self.pairs:
            return logits
        columns = list(logits.float().unbind(dim=1))
        for child, parent in self.pairs:
            columns[child] = logit_of_product(columns[parent], columns[child])
        return torch.stack(columns, dim=1)


def logit_of_product(a: Tensor, b: Tensor) -> Tensor:
    """logit(sigmoid(a) * sigmoid(b)), which is finite and exact for all a and b: 1/odds = e^-a + e^-b + e^-(a+b)."""
    return -torch.logsumexp(torch.stack([-a, -b, -a - b]), dim=0)


class Transfers(nn.Module):
    """AITM: hidden values of all towers, a list of columns [K, B] a task, parents' handed down to their children."""

    def __init__(self, tasks: Tasks, widths: Mapping[str, int]) -> None:
        """`widths`: K of each task's tower, 0 for one without a hidden layer.

        Raises:
            UserError: a child's tower has no hidden layer, or not its parent's width.
        """
        super().__init__()
        children = _children(tasks, "aitm")
        self.pairs = _pairs(tasks, children)
        for name in children:
            parent = tasks[name].parent or ""
            if not widths[name] or widths[name] != widths[parent]:
                raise UserError(
                    f"tasks.{name}.relation is aitm, but the last hidden layer of its tower has {widths[name]} numbers "
                    f"and that of its parent {parent} has {widths[parent]}\nGive both the same last tower layer."
                )
        self.transfers = nn.ModuleList(Transfer(widths[name]) for name in children)

    def forward(self, hidden: list[Tensor]) -> list[Tensor]:
        hidden = list(hidden)
        for transfer, (child, parent) in zip(self.transfers, self.pairs, strict=True):
            hidden[child] = transfer(hidden[parent].t(), hidden[child].t()).t()
        return hidden


class Transfer(nn.Module):
    """Rows of a parent's and of its child's hidden values, each [B, K] -> the child's with what it took over [B, K]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.information = nn.Linear(width, width)
        self.attention = nn.Linear(width, 3 * width)

    def forward(self, parent: Tensor, child: Tensor) -> Tensor:
        both = torch.stack([torch.relu(self.information(parent)), child])  # [2, B, K]
        value, key, query = self.attention(both).chunk(3, dim=2)
        scores = (key * query).sum(dim=2, keepdim=True) / math.sqrt(self.width)
        return (torch.softmax(scores, dim=0) * value).sum(dim=0)
