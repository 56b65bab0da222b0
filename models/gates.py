"""From gate logits to gate weights: the softmax, and the training options that keep experts alive.

Shapes: B batch, G gates, E experts.
"""

import torch
from torch import Tensor, nn

from configs.schema import ModelConfig
from models.draws import Dropout, Noise


class GateWeights(nn.Module):
    """Softmax over experts: columns of logits [G, E, B] -> weights [G, E, B] that sum to one over E.

    In training only, against polarization (a gate that settles on one expert and starves the others):
    noise, added to the logits as in Shazeer et al. 2017, "Outrageously Large Neural Networks" (without its top-k);
    dropout, which hides an expert from a row's gate and rescales the rest, as in Zhao et al. 2019, "Recommending What
    Video to Watch Next". A gate whose experts would all be hidden keeps them.
    """

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.noise, self.dropout = Noise(model.gate_noise), Dropout(model.gate_dropout)

    def forward(self, logits: Tensor) -> Tensor:
        logits = self.noise(logits)
        if self.training and self.dropout.threshold:
            kept = self.dropout.kept(logits).bool()
            hidden = ~kept & kept.any(dim=1, keepdim=True)
            logits = logits.masked_fill(hidden, float("-inf"))
        return torch.softmax(logits, dim=1)
