"""The tops that `model.top` names: one module each, with `build`, `Settings` if it has any, and `SHARES`.

A top maps x [B, D], the pooled embeddings and dense columns side by side, to (logits [B, T], gates): gates is a dict
from level to gate weights [B, G, E], empty for a top without gates. Where its tasks part it has a `models.fork`; one
whose tasks share nothing says `SHARES = False`. What a top draws at random in training, it draws by the layers of
`models.draws`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from configs.layout import InputLayout
from configs.schema import ModelConfig, TaskConfig


class TopModule(Protocol):
    """What a module of this package has."""

    def build(
        self, settings: Any, model: ModelConfig, tasks: Mapping[str, TaskConfig], inputs: InputLayout, /
    ) -> nn.Module:
        """settings: an instance of the module's `Settings`. inputs: the layout of x, D = inputs.width."""
        ...
