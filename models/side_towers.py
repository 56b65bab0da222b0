"""Side towers: features that one task's prediction depends on directly, such as the position on the page.

A shallow network of the task's own over these features alone, whose logit is added to the tower's: Zhao et al. 2019,
"Recommending What Video to Watch Next", section 4.3. Experts and gates still see the features as everything else.

Shapes: B batch, D input width, T tasks.
"""

import torch
from torch import Tensor, nn

from configs.schema import Config
from models.batched.parallel import activation

_HIDDEN = 16


class WithSideTowers(nn.Module):
    """A top, x [B, D] -> (logits [B, T], gates), with side towers for the tasks that have `tower_features`."""

    def __init__(self, top: nn.Module, config: Config) -> None:
        super().__init__()
        self.top = top
        columns, tasks = config.input_layout.spans, config.tasks
        self.spans = {name: [columns[feature] for feature in task.tower_features] for name, task in tasks.items()}
        """Of each task, the columns [start, end) of x that its side tower sees."""
        self.side = nn.ModuleDict()
        for name, spans in self.spans.items():
            if spans:
                width = sum(end - start for start, end in spans)
                layers = nn.Linear(width, _HIDDEN), activation(config.model.activation), nn.Linear(_HIDDEN, 1)
                self.side[name] = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits, gates = self.top(x)
        columns = []
        for index, (name, spans) in enumerate(self.spans.items()):
            column = logits[:, index : index + 1]
            if spans:
                column = column + self.side[name](torch.cat([x[:, start:end] for start, end in spans], dim=1))
            columns.append(column)
        return torch.cat(columns, dim=1), gates
