"""Build the top that a config names, on any device, meta included."""

from collections.abc import Mapping

import torch
from torch import nn

from configs import choices
from configs.schema import ModelConfig, TaskConfig
from models.side_towers import WithSideTowers


def build_top(
    model: ModelConfig,
    tasks: Mapping[str, TaskConfig],
    input_dim: int,
    columns: Mapping[str, tuple[int, int]] | None = None,
) -> nn.Module:
    """The top `model.top` for inputs [B, input_dim]; `models.tops` says what it returns.

    `columns` says which columns [start, end) of the input are which feature's (`Config.input_columns`), for tasks with
    `tower_features`.

    Raises:
        UserError: models/tops has no such module, a tower's feature is none, or a funnel leads nowhere.
    """
    top = choices.load("models.tops", model.top).build(model, tasks, input_dim)
    if any(task.tower_features for task in tasks.values()):
        return WithSideTowers(top, model, tasks, columns or {})
    return top


def materialize(module: nn.Module, device: torch.device | str) -> nn.Module:
    """Give a module that was built on the meta device memory on `device`, and initial values.

    They come from torch's global generator: the same seed gives the same values.
    """
    module.to_empty(device=device)
    for child in module.modules():
        if any(True for _ in (*child.parameters(recurse=False), *child.buffers(recurse=False))):
            child.reset_parameters()  # pyright: ignore[reportCallIssue]
    return module
