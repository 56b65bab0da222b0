"""Binary cross-entropy: for clicks, likes and other events. Labels may be soft, between 0 and 1."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

INPUT = "logit"
OUTPUT = "sigmoid"


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, labels, reduction="none")
