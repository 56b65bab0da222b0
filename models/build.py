"""Build the top that a config names, on any device, meta included."""

from collections.abc import Mapping

import torch
from torch import nn

from configs import choices
from configs.schema import Config, ModelConfig, TaskConfig
from models.side_towers import WithSideTowers


def build_top(model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int) -> nn.Module:
    """The top `model.top` for inputs [B, input_dim]; `models.tops` says what it returns.

    Raises:
        UserError: models/tops has no such module, or a funnel leads nowhere.
    """
    return choices.load("models.tops", model.top).build(model, tasks, input_dim)


def top_of(config: Config) -> nn.Module:
    """The top of a run, for inputs [B, config.input_width]; with side towers where tasks have `tower_features`.

    Raises:
        UserError: as `build_top`.
    """
    top = build_top(config.model, config.tasks, config.input_width)
    if any(task.tower_features for task in config.tasks.values()):
        return WithSideTowers(top, config)
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
