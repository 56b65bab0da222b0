"""Gate dropout and noise: off in evaluation, and what they promise in training."""

import torch

from configs.schema import ModelConfig
from models.draws import share_row_keys
from models.gates import GateWeights

LOGITS = torch.randn(2, 4, 4000, generator=torch.Generator().manual_seed(0))  # [gates, experts, batch]
WEIGHTS = LOGITS.softmax(dim=1)


def drawn(**options: float) -> torch.Tensor:
    gate = GateWeights(ModelConfig(**options))
    share_row_keys(gate).tensor = torch.arange(4000)
    return gate(LOGITS)


def test_evaluation_is_a_plain_softmax():
    gate = GateWeights(ModelConfig(gate_dropout=0.5, gate_noise=1.0)).eval()
    assert torch.equal(gate(LOGITS), WEIGHTS)


def test_dropout_hides_the_share_of_experts_and_rescales_the_rest():
    weights = drawn(gate_dropout=0.3)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 4000))
    hidden = weights == 0
    # Rows whose four experts would all be hidden (0.3^4 = 0.8%) keep them.
    assert abs(hidden.float().mean().item() - (0.3 - 0.3**4)) < 0.01
    kept = WEIGHTS.masked_fill(hidden, 0.0)
    torch.testing.assert_close(weights, kept / kept.sum(dim=1, keepdim=True))


def test_extreme_dropout_still_gives_distributions():
    weights = drawn(gate_dropout=0.99)
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 4000))


def test_noise_has_the_standard_deviation_it_is_given():
    noisy = drawn(gate_noise=0.5).log()
    ratio = (noisy[:, 0] - noisy[:, 1]) - (LOGITS[:, 0] - LOGITS[:, 1])
    assert abs(ratio.std().item() - 0.5 * 2**0.5) < 0.02
