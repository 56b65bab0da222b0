"""Single-task: a bottom and a tower for every task; nothing but the embeddings is shared.

The yardstick for negative transfer: a task that a shared top makes worse than this one is being hurt by the others.

y_t = tower_t(bottom_t(x)). In plain PyTorch, network by network:

    pairs = zip(bottoms, towers)                                                        # one of each for a task
    logits = torch.cat([tower(bottom(x)) for bottom, tower in pairs], dim=1)            # [B, T]

The bottoms, and the towers, are computed side by side: `models.batched` and `models.towers`.

Shapes: B batch, D input width, T tasks.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from configs.choice_settings import ChoiceSettings
from configs.layout import InputLayout
from configs.schema import ModelConfig, TaskConfig
from models.batched.parallel import ParallelMLP, WideLinear, forward_families
from models.towers import Towers

SHARES = False


class SingleTask(nn.Module):
    """x [B, D] -> (logits [B, T], no gates)."""

    def __init__(self, model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int) -> None:
        super().__init__()
        widths = model.bottom_layers or model.expert_layers
        self.normalization = nn.LayerNorm(input_dim) if model.normalization == "layer" else nn.Identity()
        self.bottoms = ParallelMLP(len(tasks), widths, model.activation, model.dropout, activate_output=True)
        self.first = WideLinear(input_dim, {"bottoms": self.bottoms.first_layer})
        self.towers = Towers(model, tasks, widths[-1])

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        (bottoms,) = forward_families(self.first, {"bottoms": self.bottoms}, self.normalization(x)).values()
        return self.towers(bottoms), {}


def build(
    settings: ChoiceSettings, model: ModelConfig, tasks: Mapping[str, TaskConfig], inputs: InputLayout
) -> SingleTask:
    return SingleTask(model, tasks, inputs.width)
