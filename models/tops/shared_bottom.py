"""Shared-bottom: one network that all tasks share, then a tower a task. The classic baseline.

Caruana 1997, "Multitask Learning". Good when tasks agree; when they do not, they fight over the bottom.

y_t = tower_t(bottom(x)). In plain PyTorch, network by network:

    h = bottom(x)                                                                       # [B, H]
    logits = torch.cat([tower(h) for tower in towers], dim=1)                           # [B, T]

The bottom is one network of `models.batched`, the towers are side by side in `models.towers`.

Shapes: B batch, D input width, H width of the bottom's output, T tasks.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from configs.choice_settings import ChoiceSettings
from configs.layout import InputLayout
from configs.schema import ModelConfig, TaskConfig
from models.batched.parallel import ParallelMLP, WideLinear, forward_families
from models.fork import CopyFork
from models.towers import Towers


class SharedBottom(nn.Module):
    """x [B, D] -> (logits [B, T], no gates)."""

    def __init__(self, model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int) -> None:
        super().__init__()
        widths = model.bottom_layers or model.expert_layers
        self.normalization = nn.LayerNorm(input_dim) if model.normalization == "layer" else nn.Identity()
        self.bottom = ParallelMLP(1, widths, model.activation, model.dropout, activate_output=True)
        self.first = WideLinear(input_dim, {"bottom": self.bottom.first_layer})
        self.copies = CopyFork(len(tasks))
        self.towers = Towers(model, tasks, widths[-1])

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        (bottom,) = forward_families(self.first, {"bottom": self.bottom}, self.normalization(x)).values()
        return self.towers(self.copies(bottom.squeeze(0))), {}


def build(
    settings: ChoiceSettings, model: ModelConfig, tasks: Mapping[str, TaskConfig], inputs: InputLayout
) -> SharedBottom:
    return SharedBottom(model, tasks, inputs.width)
