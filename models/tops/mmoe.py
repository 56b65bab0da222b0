"""MMoE: experts that all tasks share and a gate for every task that mixes them, then a tower a task.

Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts". Tasks that
disagree learn to use different experts.

y_t = tower_t(sum over e of softmax(gate_t(x))_e * expert_e(x)). In plain PyTorch, network by network:

    outputs = torch.stack([expert(x) for expert in experts])                            # [E, B, H]
    for t in range(T):
        weights = torch.softmax(gates[t](x), dim=1)                                     # [B, E]
        logits[:, t] = towers[t](torch.einsum("be,ebh->bh", weights, outputs))[:, 0]

The same in a few wide products: `models.experts` (experts, gates, mixtures) and `models.towers`.

Shapes: B batch, D input width, E experts, H expert output width, T tasks.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from configs.choice_settings import ChoiceSettings
from configs.layout import InputLayout
from configs.schema import ModelConfig, TaskConfig
from models.experts import MixtureOfExperts
from models.towers import Towers


class MMoE(nn.Module):
    """x [B, D] -> (logits [B, T], {"gate": [B, T, E]})."""

    def __init__(self, model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int) -> None:
        super().__init__()
        self.normalization = nn.LayerNorm(input_dim) if model.normalization == "layer" else nn.Identity()
        self.mixture = MixtureOfExperts(model, input_dim, num_gates=len(tasks), fork=True)
        self.towers = Towers(model, tasks, self.mixture.output_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        mixed, gates = self.mixture(self.normalization(x))
        return self.towers(mixed), {"gate": gates}


def build(settings: ChoiceSettings, model: ModelConfig, tasks: Mapping[str, TaskConfig], inputs: InputLayout) -> MMoE:
    return MMoE(model, tasks, inputs.width)
