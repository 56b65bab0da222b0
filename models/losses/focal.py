"""Focal loss: cross-entropy that turns away from rows the model is already right about. For rare events.

Lin et al. 2017, "Focal Loss for Dense Object Detection". Its predictions are not calibrated.
"""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

INPUT = "logit"
OUTPUT = "sigmoid"


def loss(logits: Tensor, labels: Tensor, *, gamma: float = 2.0, alpha: float | None = None) -> Tensor:
    """(1 - p_true)^gamma * cross-entropy; `alpha` weighs label 1, `1 - alpha` label 0, none neither."""
    cross_entropy = binary_cross_entropy_with_logits(logits, labels, reduction="none")
    predictions = logits.sigmoid()
    p_wrong = predictions * (1 - labels) + (1 - predictions) * labels
    focal = p_wrong.clamp_min(1e-12) ** gamma * cross_entropy
    return focal if alpha is None else focal * (alpha * labels + (1 - alpha) * (1 - labels))
