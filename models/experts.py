"""A mixture of experts over one input: all experts and all gates as a few wide batched products.

Layer 1 of every expert and gate is one matrix product, the later layers are one batched product each, and mixing is
one more. What follows the mixture (towers) and stacks of mixtures (models/tops/ple.py) are elsewhere.

Shapes: B batch, D input width, E experts, H expert output width, G gates.
"""

import torch
from torch import Tensor, nn

from configs.schema import ModelConfig
from models.gates import GateWeights
from models.parallel import ParallelMLP


class MixtureOfExperts(nn.Module):
    """x [B, D] -> (mixed [G, B, H], gates [B, G, E]): each gate's own mixture of the same E experts."""

    def __init__(self, model: ModelConfig, input_dim: int, num_gates: int) -> None:
        super().__init__()
        self.num_gates, self.num_experts, self.output_dim = num_gates, model.num_experts, model.expert_layers[-1]
        self.experts = ParallelMLP(
            model.num_experts, model.expert_layers, model.activation, model.dropout, activate_output=True
        )
        self.gates = ParallelMLP(
            num_gates, (*model.gate_layers, model.num_experts), model.activation, activate_output=False
        )
        self.gate_weights = GateWeights(model)
        residual = model.num_experts * self.output_dim if model.residual else 0
        self.first_widths = [self.experts.first_width, self.gates.first_width, residual]
        self.first = nn.Linear(input_dim, sum(self.first_widths))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        expert_columns, gate_columns, residual = self.first(x).split(self.first_widths, dim=1)
        experts = self.experts.from_shared_input(expert_columns)
        if self.first_widths[2]:
            experts = experts + residual.unflatten(1, (self.num_experts, self.output_dim)).transpose(0, 1)
        gates = self.gate_weights(self.gates.from_shared_input(gate_columns).transpose(0, 1))
        return mix(gates, experts), gates


def mix(gates: Tensor, experts: Tensor) -> Tensor:
    """Weighted sums of experts: gates [B, G, E], experts [E, B, H] -> [G, B, H]."""
    return torch.bmm(gates.to(experts.dtype), experts.transpose(0, 1)).transpose(0, 1)
