"""Huber loss: squared error for small errors, linear for large ones. For numbers with outliers.

Huber 1964, "Robust Estimation of a Location Parameter".
"""

from functools import partial

from pydantic import Field
from torch.nn.functional import huber_loss

from configs.choice_settings import ChoiceSettings
from configs.section import PositiveFloat
from models.losses import RowLoss

INPUT = "prediction"
OUTPUT = "identity"


class Settings(ChoiceSettings):
    delta: PositiveFloat = Field(
        default=1.0,
        description="Error from which the loss grows linearly; set it to the size of an error that is still usual.",
    )


def build(settings: Settings) -> RowLoss:
    """0.5 * error^2 where |error| <= delta, delta * (|error| - 0.5 * delta) beyond."""
    return partial(huber_loss, reduction="none", delta=settings.delta)
