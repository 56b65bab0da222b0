"""A mixture of experts over one input: all experts and all gates as a few wide batched products.

Layer 1 of every expert and gate is one matrix product, the later layers are one batched product each, and mixing is
one more. What follows the mixture (towers) and stacks of mixtures (models/tops/ple.py) are elsewhere. Here too: the
penalty on experts that few rows use.

Shapes: B batch, D input width, E experts, H expert output width, G gates, T tasks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from configs.schema import ModelConfig
from models.batched.parallel import ParallelMLP, WideLinear, forward_families
from models.fork import Mix, MixFork, ReduceSum
from models.gates import GateWeights


class MixtureOfExperts(nn.Module):
    """x [B, D] -> (mixed columns [G, H, B], gates [B, G, E]): each gate's own mixture of the same E experts.

    `fork` says that each gate is one task's, so that tasks part here.
    """

    def __init__(self, model: ModelConfig, input_dim: int, num_gates: int, *, fork: bool) -> None:
        super().__init__()
        self.num_gates, self.num_experts, self.output_dim = num_gates, model.num_experts, model.expert_layers[-1]
        self.experts = ParallelMLP(
            model.num_experts, model.expert_layers, model.activation, model.dropout, activate_output=True
        )
        self.gates = ParallelMLP(
            num_gates, (*model.gate_layers, model.num_experts), model.activation, activate_output=False
        )
        self.gate_weights = GateWeights(model)
        self.mix = MixFork() if fork else Mix()
        families = {"experts": self.experts.first_layer, "gates": self.gates.first_layer}
        self.residual = model.residual
        if model.residual:
            families["residuals"] = (self.num_experts, self.output_dim)
        self.first = WideLinear(input_dim, families)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        columns = forward_families(self.first, {"experts": self.experts, "gates": self.gates}, x)
        gates = self.gate_weights(columns["gates"])
        experts = columns["experts"]
        if self.residual:
            experts = experts + columns["residuals"]
        return self.mix(gates, experts), gates.permute(2, 0, 1)


def load_balance_loss(gates: Mapping[str, Tensor], weights: Tensor, reduce_sum: ReduceSum = lambda x: x) -> Tensor:
    """Squared coefficient of variation of the experts' load, summed over levels [].

    The importance loss of Shazeer et al. 2017, "Outrageously Large Neural Networks". The load of an expert is its
    mean gate weight over rows and over the gates of its level, so tasks may differ as long as all experts are used. An
    expert's fair share counts only the gates that reach it (PLE): load^2 / fair share, summed, minus one.

    Args:
        gates: level -> gate weights [B, G, E].
        weights: label weights [B, T]; a row whose weights are all zero is padding and does not count.
        reduce_sum: sum of a tensor over all ranks. With it the value is that of the global batch, on every rank, and
            the mean over ranks of the gradients is its gradient; without it each rank balances its own rows.
    """
    is_row = (weights != 0).any(dim=1).float()
    loads = [torch.einsum("b,bge->ge", is_row, gate.float()) for gate in gates.values()]
    sizes = [load.numel() for load in loads]
    local = torch.cat([*(load.flatten() for load in loads), is_row.sum().view(1)])
    world = torch.cat([local.detach(), torch.ones_like(local[:1])])
    *totals, rows, ranks = reduce_sum(world).split([*sizes, 1, 1])
    parts = [
        _penalty(load, total.view_as(load), rows.clamp_min(1), ranks) for load, total in zip(loads, totals, strict=True)
    ]
    return torch.stack(parts).sum() if parts else weights.new_zeros(())


def _penalty(load: Tensor, total: Tensor, rows: Tensor, ranks: Tensor) -> Tensor:
    """Value of the global penalty; gradient of the part of it that this rank's `load` [G, E] makes up."""
    reached = (total > 0).float()
    fair = (reached / reached.sum(dim=1, keepdim=True).clamp_min(1)).mean(dim=0).clamp_min(1e-12)
    share = total.mean(dim=0) / rows
    value = (share.square() / fair).sum() - 1
    gradient = 2 * share / fair * ranks / rows
    local = (gradient * load.mean(dim=0)).sum()
    return value + local - local.detach()
