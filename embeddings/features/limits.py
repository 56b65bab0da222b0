"""What the values of a column must be to be used at all, as far as the footer of a file can tell before it is read."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Limits:
    """Between `low` and `high`, both allowed; `nulls`: whether a value may be missing.

    remedy: what to do about a value beyond.
    """

    remedy: str
    low: float = -math.inf
    high: float = math.inf
    nulls: bool = True

    def allow(self, low: float, high: float) -> bool:
        """Whether a column from `low` to `high` keeps to the limits."""
        return self.low <= low and high <= self.high


def finite(remedy: str, dtype: type[np.floating] = np.float64, nulls: bool = True) -> Limits:
    """Numbers that `dtype` holds."""
    largest = float(np.finfo(dtype).max)
    return Limits(remedy, -largest, largest, nulls)
