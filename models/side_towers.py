"""Side towers: features that one task's prediction depends on directly, such as the position on the page.

A shallow network of the task's own over these features alone, whose logit is added to the tower's: Zhao et al. 2019,
"Recommending What Video to Watch Next", section 4.3. Experts and gates still see the features as everything else.

Shapes: B batch, D input width, T tasks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from configs import choices
from configs.errors import UserError
from configs.schema import ModelConfig, TaskConfig
from models.parallel import activation

_HIDDEN = 16


class WithSideTowers(nn.Module):
    """A top, x [B, D] -> (logits [B, T], gates), with side towers for the tasks that have `tower_features`.

    `columns` says which columns [start, end) of x are which feature's.

    Raises:
        UserError: a tower's feature is none.
    """

    def __init__(
        self,
        top: nn.Module,
        model: ModelConfig,
        tasks: Mapping[str, TaskConfig],
        columns: Mapping[str, tuple[int, int]],
    ) -> None:
        super().__init__()
        self.top = top
        self.columns = {name: _columns_of(name, task, columns) for name, task in tasks.items()}
        self.side = nn.ModuleDict()
        for name, spans in self.columns.items():
            if spans:
                width = sum(end - start for start, end in spans)
                layers = nn.Linear(width, _HIDDEN), activation(model.activation), nn.Linear(_HIDDEN, 1)
                self.side[name] = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits, gates = self.top(x)
        columns = []
        for index, (name, spans) in enumerate(self.columns.items()):
            column = logits[:, index : index + 1]
            if spans:
                column = column + self.side[name](torch.cat([x[:, start:end] for start, end in spans], dim=1))
            columns.append(column)
        return torch.cat(columns, dim=1), gates


def _columns_of(name: str, task: TaskConfig, columns: Mapping[str, tuple[int, int]]) -> list[tuple[int, int]]:
    for feature in task.tower_features:
        if feature not in columns:
            there = choices.did_you_mean(feature, list(columns))
            raise UserError(f"tasks.{name}.tower_features: {feature!r} is no feature\n{there}")
    return [columns[feature] for feature in task.tower_features]
