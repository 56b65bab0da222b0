"""MoE: experts and a single gate that all tasks share, then a tower a task.

OMoE in Ma et al. 2018 (see models/tops/mmoe.py): what MMoE is without a gate of its own for every task.

y_t = tower_t(sum over e of softmax(gate(x))_e * expert_e(x)). In plain PyTorch, network by network:

    outputs = torch.stack([expert(x) for expert in experts])                            # [E, B, H]
    weights = torch.softmax(gate(x), dim=1)                                             # [B, E]
    mixed = torch.einsum("be,ebh->bh", weights, outputs)                                # of all tasks
    logits = torch.cat([tower(mixed) for tower in towers], dim=1)                       # [B, T]

The same in a few wide products: `models.experts` and `models.towers`.

Shapes: B batch, D input width, E experts, H expert output width, T tasks.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from configs.choice_settings import ChoiceSettings
from configs.layout import InputLayout
from configs.schema import ModelConfig, TaskConfig
from models.experts import MixtureOfExperts
from models.fork import CopyFork
from models.towers import Towers


class MoE(nn.Module):
    """x [B, D] -> (logits [B, T], {"gate": [B, 1, E]})."""

    def __init__(self, model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int) -> None:
        super().__init__()
        self.normalization = nn.LayerNorm(input_dim) if model.normalization == "layer" else nn.Identity()
        self.mixture = MixtureOfExperts(model, input_dim, num_gates=1, fork=False)
        self.copies = CopyFork(len(tasks))
        self.towers = Towers(model, tasks, self.mixture.output_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        mixed, gates = self.mixture(self.normalization(x))
        return self.towers(self.copies(mixed.squeeze(0))), {"gate": gates}


def build(settings: ChoiceSettings, model: ModelConfig, tasks: Mapping[str, TaskConfig], inputs: InputLayout) -> MoE:
    return MoE(model, tasks, inputs.width)
