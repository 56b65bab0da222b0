"""Old rows weigh less: half after `half_life_days`, a quarter after twice as long.

For behaviour that drifts, where dropping old rows would lose rare positives. Ages are counted back from `date`.
"""

from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt
from pydantic import Field, field_validator

from configs.section import PositiveFloat
from embeddings.features.arrow import refuse, single_array
from trainer.data.columns.numbers import Vector, refuse_first
from trainer.data.columns.reweighting import Rule
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.newest import newest

_DAY_S = 86_400
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "days": float(_DAY_S)}


class Settings(Rule):
    """max(floor, 0.5 ^ (age / half_life_days)); a row of `date` or later weighs 1.

    column: dates, timestamps (UTC where they name no zone), or integers since 1970-01-01 in `unit`. date: such as
    2022-05-04 or 2022-05-04T18:00; left out, it is the newest of the training part when the run starts.
    """

    column: str
    half_life_days: PositiveFloat
    date: str | None = None
    unit: Literal["s", "ms", "us", "days"] = "s"
    floor: float = Field(default=0.0, ge=0, le=1)

    @field_validator("date", mode="before")
    @classmethod
    def _is_a_date(cls, value: Any) -> Any:
        if value is not None:
            _seconds_of(str(value))
        return None if value is None else str(value)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def __call__(self, table: pa.Table, labels: Vector, where: str) -> Vector:
        array = single_array(table[self.column])
        seconds = self._seconds(array, f"{where}: column {self.column!r}")
        refuse_first(np.isnan(seconds), table, self.column, where, "which is no time", "Write a time for every row.")
        if not len(seconds):  # of a check of types, before the newest row is known
            return np.ones(0, np.float32)
        assert self.date is not None, "settled when the run was prepared"
        days = np.maximum(_seconds_of(self.date) - seconds, 0) / _DAY_S
        return np.maximum(0.5 ** (days / self.half_life_days), self.floor).astype(np.float32)

    def settled(self, manifest: Manifest) -> dict[str, Any]:
        if self.date is not None:
            return {}
        latest = newest(manifest, self.column, "Give reweight.time_decay.date.")
        seconds = float(self._seconds(pa.array([latest]), f"{manifest.root}: column {self.column!r}")[0])
        return {"date": datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}

    def _seconds(self, array: pa.Array, what: str) -> npt.NDArray[np.float64]:
        """Since 1970-01-01 UTC [R]; NaN for a null."""
        unit = self.unit
        if pt.is_timestamp(array.type):
            array, unit = array.cast(pa.timestamp("us", array.type.tz), safe=False).cast(pa.int64()), "us"
        elif pt.is_date(array.type):
            array, unit = array.cast(pa.date32()).cast(pa.int32()), "days"
        elif not pt.is_integer(array.type):
            refuse(array.type, what, "a time", "Write timestamps, dates, or integers since 1970-01-01.")
        return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) * _UNITS[unit]


def _seconds_of(date: str) -> float:
    moment = datetime.fromisoformat(date)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
