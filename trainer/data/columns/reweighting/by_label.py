"""Positives weigh more, the larger another label of their row is: a click followed by a long watch counts most.

Covington et al. 2016, "Deep Neural Networks for YouTube Recommendations", section 4.2, weigh positives by watch time
(`growth: linear`), which makes the odds of a click estimate it; `log1p` keeps few rows from deciding everything.
"""

from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from configs.choice_settings import ChoiceSettings
from configs.section import PositiveFloat
from embeddings.features.limits import Limits
from trainer.data.columns.numbers import Vector, numbers, refuse_first
from trainer.data.columns.reweighting import Rule


class Settings(ChoiceSettings):
    label: str = Field(description="Column with the value, at least 0; a null weighs 1.")
    growth: Literal["log1p", "linear"] = Field(
        default="log1p", description="log1p: 1 + log(1 + value / scale); linear: 1 + value / scale."
    )
    scale: PositiveFloat = Field(default=1.0, description="The value that weighs 2 (log1p: 1.69).")
    cap: PositiveFloat | None = Field(
        default=None, description="Largest weight of a row; left out, one row may outweigh a batch."
    )


class ByLabel(Rule):
    """1 + value / scale, or 1 + log(1 + value / scale), at most `cap`, where the task's own label is 1.

    A label between 0 and 1 gets its share of that. A null weighs 1, as a row of label 0 does.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.columns = (settings.label,)

    @property
    def limits(self) -> dict[str, Limits]:
        return {
            self.settings.label: Limits("Write a finite number of at least 0.", 0.0, float(np.finfo(np.float32).max))
        }

    def __call__(self, table: pa.Table, labels: Vector, where: str) -> Vector:
        settings = self.settings
        values = np.nan_to_num(numbers(table, settings.label, where), nan=0.0, posinf=np.inf)
        wrong = ~(np.isfinite(values) & (values >= 0))
        refuse_first(
            wrong, table, settings.label, where, "which gives no weight", "Write a finite number of at least 0."
        )
        extra = values / np.float32(settings.scale)
        factor = 1 + (np.log1p(extra) if settings.growth == "log1p" else extra)
        if settings.cap is not None:
            factor = np.minimum(factor, np.float32(settings.cap))
        return (1 + labels * (factor - 1)).astype(np.float32)


build = ByLabel
