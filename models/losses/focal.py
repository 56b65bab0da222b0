"""Focal loss: cross-entropy that turns away from rows the model is already right about. For rare events.

Lin et al. 2017, "Focal Loss for Dense Object Detection". Its predictions are not calibrated.
"""

from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from configs.choice_settings import ChoiceSettings
from configs.section import NonNegativeFloat
from models.losses import RowLoss

INPUT = "logit"
OUTPUT = "sigmoid"


class Settings(ChoiceSettings):
    gamma: NonNegativeFloat = Field(
        default=2.0,
        description="How little a row counts that is predicted well; 0 is cross-entropy, the paper uses 0.5 to 5.",
    )
    alpha: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Weight of label 1, beside 1 - alpha for label 0; left out, both weigh 1. At 0 or 1 rows of one "
        "label teach nothing.",
    )


def build(settings: Settings) -> RowLoss:
    """(1 - p_true)^gamma * cross-entropy, weighed by `alpha` where it is set."""
    gamma, alpha = settings.gamma, settings.alpha

    def focal(logits: Tensor, labels: Tensor) -> Tensor:
        cross_entropy = binary_cross_entropy_with_logits(logits, labels, reduction="none")
        predictions = logits.sigmoid()
        p_wrong = predictions * (1 - labels) + (1 - predictions) * labels
        loss = p_wrong.clamp_min(1e-12) ** gamma * cross_entropy
        return loss if alpha is None else loss * (alpha * labels + (1 - alpha) * (1 - labels))

    return focal
