"""The towers: one small network a task, from what the tasks share to a logit each.

Tasks with equal tower widths are computed together. From logit to prediction or loss: `models.criterion`.

Shapes: B batch, H input width, T tasks, N tasks of one group.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from configs.schema import ModelConfig, TaskConfig
from models.batched.grouping import Grouping
from models.batched.parallel import ParallelLinear, ParallelMLP, forward_family
from models.funnel import EntireSpace, Transfers


class Towers(nn.Module):
    """Logits [B, T] from columns of an input for every task [T, H, B].

    Raises:
        UserError: a funnel that leads nowhere, see `models.funnel`.
    """

    def __init__(self, model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int) -> None:
        super().__init__()
        hidden = {name: _hidden(model, task) for name, task in tasks.items()}
        self.num_tasks = len(tasks)
        self.grouping = Grouping(list(hidden.values()))
        self.groups = nn.ModuleList(
            TowerGroup(model, len(members), input_dim, widths)
            for widths, members in zip(self.grouping.keys, self.grouping.groups, strict=True)
        )
        self.transfers = Transfers(tasks, {name: (0, *widths)[-1] for name, widths in hidden.items()})
        self.entire_space = EntireSpace(tasks)

    def forward(self, x: Tensor) -> Tensor:
        inputs = self.grouping.split(x, dim=0)
        if self.transfers.pairs:
            logits = self._with_transfers(inputs)
        else:
            logits = [group(h) for group, h in zip(self.groups, inputs, strict=True)]
        return self.entire_space(self.grouping.join(logits, dim=0).squeeze(1).t())

    def _with_transfers(self, inputs: list[Tensor]) -> list[Tensor]:
        """Logits [N, 1, B] of each group, after parents' towers have passed on what they know."""
        groups = [group for group in self.groups if isinstance(group, TowerGroup)]
        by_group = [group.last_hidden(h) for group, h in zip(groups, inputs, strict=True)]
        positions = [position for members in self.grouping.groups for position in members]
        every = dict(zip(positions, [h for part in by_group for h in part.unbind(0)], strict=True))
        passed = self.transfers([every[position] for position in range(self.num_tasks)])
        return [
            group.logits(torch.stack([passed[position] for position in members]))
            for group, members in zip(groups, self.grouping.groups, strict=True)
        ]


class TowerGroup(nn.Module):
    """N towers of equal widths: columns [N, H, B] -> logits [N, 1, B]."""

    def __init__(self, model: ModelConfig, count: int, input_dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.rest = ParallelMLP(count, (*hidden, 1), model.activation, model.dropout, activate_output=False)
        self.first = ParallelLinear(count, input_dim, self.rest.widths[0])

    def forward(self, x: Tensor) -> Tensor:
        return forward_family(self.first, self.rest, x)

    def last_hidden(self, x: Tensor) -> Tensor:
        """Columns [N, H, B] -> columns [N, K, B] that the towers' last layers take."""
        return self.rest.last_hidden(self.first(x))

    def logits(self, last_hidden: Tensor) -> Tensor:
        """Columns [N, K, B] -> logits [N, 1, B]."""
        return self.rest.layers[-1](last_hidden)


def _hidden(model: ModelConfig, task: TaskConfig) -> tuple[int, ...]:
    return model.tower_layers if task.tower_layers is None else task.tower_layers
