"""Binary cross-entropy: for clicks, likes and other events. Labels may be soft, between 0 and 1."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from configs.choice_settings import ChoiceSettings
from models.losses import RowLoss

INPUT = "logit"
OUTPUT = "sigmoid"


def build(settings: ChoiceSettings) -> RowLoss:
    return _cross_entropy


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, labels, reduction="none")
