"""Squared error: for numbers such as a rating or a watch time that was scaled to order one."""

from torch import Tensor

from configs.choice_settings import ChoiceSettings
from models.losses import RowLoss

INPUT = "prediction"
OUTPUT = "identity"


def build(settings: ChoiceSettings) -> RowLoss:
    return _squared_error


def _squared_error(predictions: Tensor, labels: Tensor) -> Tensor:
    return (predictions - labels).square()
