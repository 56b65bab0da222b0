"""The towers: one small network a task, from what the tasks share to a logit each.

Tasks with equal tower widths are computed together. From logit to prediction or loss: `models.criterion`.

Shapes: B batch, H input width, T tasks, N tasks of one group.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from configs.schema import ModelConfig, TaskConfig
from models.grouping import Grouping
from models.parallel import ParallelLinear, ParallelMLP


class Towers(nn.Module):
    """Logits [B, T] from rows of an input for every task [T, B, H]."""

    def __init__(self, model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int) -> None:
        super().__init__()
        widths = [_hidden(model, task) for task in tasks.values()]
        self.num_tasks = len(widths)
        self.grouping = Grouping(widths)
        self.groups = nn.ModuleList(
            TowerGroup(model, len(members), input_dim, hidden)
            for hidden, members in zip(self.grouping.keys, self.grouping.groups, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits = [group(h) for group, h in zip(self.groups, self.grouping.split(x, dim=0), strict=True)]
        return self.grouping.join(logits, dim=0).squeeze(1).t()


class TowerGroup(nn.Module):
    """N towers of equal widths: rows [N, B, H] -> logits [N, 1, B]."""

    def __init__(self, model: ModelConfig, count: int, input_dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.rest = ParallelMLP(count, (*hidden, 1), model.activation, model.dropout, activate_output=False)
        self.first = ParallelLinear(count, input_dim, self.rest.widths[0], "to_columns")

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x))


def _hidden(model: ModelConfig, task: TaskConfig) -> tuple[int, ...]:
    return model.tower_layers if task.tower_layers is None else task.tower_layers
