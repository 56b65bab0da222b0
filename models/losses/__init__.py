"""The losses that `tasks.<name>.loss` names: one module each, with `build`, `Settings` if any, and two constants.

`INPUT` says what a loss is given, "logit" (its labels are then between 0 and 1) or "prediction"; `OUTPUT` what turns a
logit into a prediction when the task says `output: auto`, "sigmoid" or "identity".
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol

from torch import Tensor

RowLoss = Callable[[Tensor, Tensor], Tensor]
"""(input, labels), both [B, N] -> the loss of every row and task [B, N], without a reduction."""


class LossModule(Protocol):
    """What a module of this package has."""

    INPUT: Literal["logit", "prediction"]
    OUTPUT: Literal["sigmoid", "identity"]

    def build(self, settings: Any, /) -> RowLoss: ...
