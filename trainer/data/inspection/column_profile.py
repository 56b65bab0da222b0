"""What a column of raw data holds, gathered batch by batch in bounded memory: nulls, lengths, distinct IDs, numbers.

Which rows are looked at is for `inspect_data`, how the outcome is shown for `data_report`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from embeddings.features.arrow import byte_slices, flatten, is_bytes, is_list, is_text, single_array
from embeddings.features.xxh64 import Hashes, hash_bytes, hash_integers

KEPT = 4096  # hashes: a standard error of 1.6% of the estimate, and 32 KiB a column


class DistinctCount:
    """Number of distinct values among those added, exact below `kept` of them.

    The `kept` smallest hashes are remembered: if the largest of them lies at a fraction f of all hashes, there are
    (kept - 1) / f values, with a standard error near 1 / sqrt(kept). Bar-Yossef et al. 2002, "Counting distinct
    elements in a data stream"; Giroire 2009 for the unbiased form.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._smallest: Hashes = np.empty(0, np.uint64)

    @property
    def is_exact(self) -> bool:
        """Whether every distinct hash is still remembered."""
        return len(self._smallest) < self._kept

    def add(self, hashes: Hashes) -> None:
        """Takes in hashes [N], uniform over 64 bits."""
        if not self.is_exact:
            hashes = hashes[hashes < self._smallest[-1]]
        if len(hashes):
            self._smallest = np.unique(np.concatenate([self._smallest, hashes]))[: self._kept]

    def estimate(self) -> int:
        """The number of distinct values."""
        if self.is_exact:
            return len(self._smallest)
        return round((self._kept - 1) * 2.0**64 / (float(self._smallest[-1]) + 1))


class ColumnProfile:
    """A column's statistics over the batches added so far. Lists are looked at element by element."""

    def __init__(self) -> None:
        self.types: dict[str, None] = {}  # in order of appearance
        self._rows = self._nulls = 0
        self._is_list = False
        self._elements = self._longest = 0
        self._distinct: DistinctCount | None = None
        self._numbers = self._finite = 0
        self._sum = 0.0
        self._low = self._high = None
        self._only_0_and_1 = True

    def add(self, column: pa.Array) -> None:
        """Takes in the column's values of some rows."""
        array = single_array(column)
        self._rows += len(array)
        if pt.is_null(array.type):
            self._nulls += len(array)
            return
        self._nulls += array.null_count
        elements, lengths = flatten(array)
        if is_list(array.type):
            self._is_list = True
            self._elements += int(lengths.sum())
            self._longest = max(self._longest, int(lengths.max(initial=0)))
        elements = elements.drop_null()
        self._add_ids(elements)
        self._add_numbers(elements)

    def _add_ids(self, values: pa.Array) -> None:
        hashes = _hashes(values)
        if hashes is not None:
            self._distinct = self._distinct or DistinctCount()
            self._distinct.add(hashes)

    def _add_numbers(self, values: pa.Array) -> None:
        numbers = _numbers(values)
        if numbers is None:
            self._only_0_and_1 &= not len(values)
            return
        finite = numbers[np.isfinite(numbers)]
        self._numbers += len(numbers)
        self._finite += len(finite)
        self._only_0_and_1 &= bool(((numbers == 0) | (numbers == 1)).all())
        if len(finite):
            low, high = finite.min().item(), finite.max().item()
            self._low = low if self._low is None else min(self._low, low)
            self._high = high if self._high is None else max(self._high, high)
            self._sum += float(finite.sum(dtype=np.float64))

    def to_json(self) -> dict[str, Any]:
        """The statistics as JSON values; None where there is nothing to say.

        `positive_rate` is the mean of a column of nothing but zeros and ones, `non_finite` counts NaN and infinities.
        """
        mean = self._sum / self._finite if self._finite else None
        could_be_label = bool(self._numbers) and not self._is_list and self._only_0_and_1
        return {
            "type": " | ".join(self.types),
            "rows": self._rows,
            "null_rate": self._nulls / self._rows if self._rows else None,
            "distinct": self._distinct.estimate() if self._distinct else None,
            "distinct_is_exact": self._distinct.is_exact if self._distinct else None,
            "mean_length": self._elements / self._rows if self._is_list and self._rows else None,
            "max_length": self._longest if self._is_list else None,
            "min": self._low,
            "mean": mean,
            "max": self._high,
            "non_finite": self._numbers - self._finite,
            "positive_rate": mean if could_be_label else None,
        }


def _hashes(values: pa.Array) -> Hashes | None:
    """Hashes of values that can be IDs, integers and strings without nulls, as tables hash them."""
    if isinstance(values, pa.DictionaryArray):
        used = np.unique(values.indices.to_numpy())
        return _hashes(values.dictionary.take(pa.array(used)))
    if is_text(values.type) or is_bytes(values.type):
        return hash_bytes(*byte_slices(values))
    if not (pt.is_integer(values.type) or pt.is_boolean(values.type)):
        return None
    return hash_integers(values.to_numpy(zero_copy_only=False).astype(np.int64))


def _numbers(values: pa.Array) -> npt.NDArray[Any] | None:
    """Values without nulls as numbers, booleans as 0 and 1, or None when they are something else."""
    kind = values.type
    if pt.is_decimal(kind):
        values = values.cast(pa.float64(), safe=False)
    elif not (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind)):
        return None
    numbers = values.to_numpy(zero_copy_only=False)
    return numbers.astype(np.uint8) if pt.is_boolean(kind) else numbers
