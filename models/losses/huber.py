"""Huber loss: squared error for small errors, linear for large ones. For numbers with outliers.

Huber 1964, "Robust Estimation of a Location Parameter".
"""

from torch import Tensor
from torch.nn.functional import huber_loss

INPUT = "prediction"
OUTPUT = "identity"


def loss(predictions: Tensor, labels: Tensor, *, delta: float = 1.0) -> Tensor:
    """0.5 * error^2 where |error| <= delta, delta * (|error| - 0.5 * delta) beyond."""
    return huber_loss(predictions, labels, reduction="none", delta=delta)
