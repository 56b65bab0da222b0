"""Build the top that a config names, on any device, meta included."""

from collections.abc import Mapping

import torch
from torch import nn

from configs import choices
from configs.schema import ModelConfig, TaskConfig


def build_top(model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int) -> nn.Module:
    """The top `model.top` for inputs [B, input_dim]; `models.tops` says what it returns.

    Raises:
        UserError: models/tops has no such module.
    """
    return choices.load("models.tops", model.top).build(model, tasks, input_dim)


def materialize(module: nn.Module, device: torch.device | str) -> nn.Module:
    """Give a module that was built on the meta device memory on `device`, and initial values.

    They come from torch's global generator: the same seed gives the same values.
    """
    module.to_empty(device=device)
    for child in module.modules():
        if any(True for _ in (*child.parameters(recurse=False), *child.buffers(recurse=False))):
            child.reset_parameters()  # pyright: ignore[reportCallIssue]
    return module
