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
    """Logits [B, T] from one input for every task [T, B, H], or, with `shared_input`, from one for all [B, H]."""

    def __init__(
        self, model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int, *, shared_input: bool = False
    ) -> None:
        super().__init__()
        widths = [(*_hidden(model, task), 1) for task in tasks.values()]
        self.shared_input = shared_input
        self.num_tasks = len(widths)
        self.grouping = Grouping(widths)
        self.first = nn.ModuleList()
        self.rest = nn.ModuleList()
        for group_widths, members in zip(self.grouping.keys, self.grouping.groups, strict=True):
            rest = ParallelMLP(len(members), group_widths, model.activation, model.dropout, activate_output=False)
            self.rest.append(rest)
            if shared_input:
                self.first.append(nn.Linear(input_dim, rest.first_width))
            else:
                self.first.append(ParallelLinear(rest.count, input_dim, rest.widths[0]))

    def forward(self, x: Tensor) -> Tensor:
        if self.shared_input:
            logits = [rest.from_shared_input(first(x)) for first, rest in zip(self.first, self.rest, strict=True)]
        else:
            inputs = self.grouping.split(x, dim=0)
            logits = [rest(first(h)) for first, rest, h in zip(self.first, self.rest, inputs, strict=True)]
        return self.grouping.join(logits, dim=0).squeeze(2).transpose(0, 1)


def _hidden(model: ModelConfig, task: TaskConfig) -> tuple[int, ...]:
    return model.tower_layers if task.tower_layers is None else task.tower_layers
