"""Squared error: for numbers such as a rating or a watch time that was scaled to order one."""

from torch import Tensor

INPUT = "prediction"
OUTPUT = "identity"


def loss(predictions: Tensor, labels: Tensor) -> Tensor:
    return (predictions - labels).square()
