"""The towers: one small network a task, from what the tasks share to a logit each.

Tasks with equal tower widths are computed together. From logit to prediction or loss: `models.criterion`.

Shapes: B batch, H input width, T tasks, N tasks of one group.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from configs.schema import ModelConfig, TaskConfig
from models.grouping import Grouping
from models.parallel import ParallelLinear, ParallelMLP, WideLinear


class Towers(nn.Module):
    """Logits [B, T] from rows for every task [T, B, H], or, with `shared_input`, from one input for all [B, H]."""

    def __init__(
        self, model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int, *, shared_input: bool = False
    ) -> None:
        super().__init__()
        widths = [_hidden(model, task) for task in tasks.values()]
        self.num_tasks, self.shared_input = len(widths), shared_input
        self.grouping = Grouping(widths)
        self.groups = nn.ModuleList(
            TowerGroup(model, len(members), input_dim, hidden, shared_input=shared_input)
            for hidden, members in zip(self.grouping.keys, self.grouping.groups, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        inputs = [x] * len(self.groups) if self.shared_input else self.grouping.split(x, dim=0)
        logits = [group(h) for group, h in zip(self.groups, inputs, strict=True)]
        return self.grouping.join(logits, dim=0).squeeze(1).t()


class TowerGroup(nn.Module):
    """N towers of equal widths: rows [N, B, H], or one input [B, H] with `shared_input`, -> logits [N, 1, B]."""

    def __init__(
        self, model: ModelConfig, count: int, input_dim: int, hidden: tuple[int, ...], *, shared_input: bool
    ) -> None:
        super().__init__()
        self.rest = ParallelMLP(count, (*hidden, 1), model.activation, model.dropout, activate_output=False)
        if shared_input:
            self.first = WideLinear(input_dim, {"towers": self.rest.first_layer})
        else:
            self.first = ParallelLinear(count, input_dim, self.rest.widths[0], "to_columns")

    def forward(self, x: Tensor) -> Tensor:
        columns = self.first(x)["towers"] if isinstance(self.first, WideLinear) else self.first(x)
        return self.rest(columns)


def _hidden(model: ModelConfig, task: TaskConfig) -> tuple[int, ...]:
    return model.tower_layers if task.tower_layers is None else task.tower_layers
