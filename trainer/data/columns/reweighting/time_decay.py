"""Old rows weigh less: half after `half_life_days`, a quarter after twice as long.

For behaviour that drifts, where dropping old rows would lose rare positives. Ages are counted back from `date`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt
from pydantic import Field, field_validator

from configs.choice_settings import ChoiceSettings
from configs.errors import UserError
from configs.section import PositiveFloat
from embeddings.features.arrow import refuse, single_array
from embeddings.features.limits import Limits
from trainer.data.columns.numbers import Vector, refuse_first
from trainer.data.columns.reweighting import Rule
from trainer.data.dataset.largest import largest
from trainer.data.dataset.manifest import Manifest

_DAY_S = 86_400
_CLOCKS_DIFFER_DAYS = 2  # and time zones
_NOTHING = 1e-6  # a weight that teaches nothing
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "days": float(_DAY_S)}


class Settings(ChoiceSettings):
    column: str = Field(
        description="Dates, timestamps (UTC where they name no zone), or integers since 1970-01-01 in `unit`."
    )
    half_life_days: PositiveFloat = Field(description="Age at which a row weighs half; short ones forget rare events.")
    date: str | None = Field(
        default=None,
        description="From where ages are counted, such as 2022-05-04 or 2022-05-04T18:00; left out, the newest of the "
        "training part when the run starts.",
    )
    unit: Literal["s", "ms", "us", "days"] = Field(default="s", description="Of a column of integers.")
    floor: float = Field(default=0.0, ge=0, le=1, description="Least weight of a row; 1 turns the rule off.")

    @field_validator("date", mode="before")
    @classmethod
    def _is_a_date(cls, value: Any) -> Any:
        if value is not None:
            _seconds_of(str(value))
        return None if value is None else str(value)


class TimeDecay(Rule):
    """max(floor, 0.5 ^ (age / half_life_days)); a row of `date` or later weighs 1."""

    def __init__(self, settings: Settings) -> None:
        self.column, self.columns = settings.column, (settings.column,)
        self.half_life_days, self.floor = settings.half_life_days, settings.floor
        self.date, self.unit = settings.date, settings.unit

    @property
    def limits(self) -> dict[str, Limits]:
        return {self.column: Limits("Write a time for every row.", nulls=False)}

    def __call__(self, table: pa.Table, labels: Vector, where: str) -> Vector:
        array = single_array(table[self.column])
        seconds = self._seconds(array, f"{where}: column {self.column!r}")
        refuse_first(np.isnan(seconds), table, self.column, where, "which is no time", "Write a time for every row.")
        if not len(seconds):  # of a check of types, before the newest row is known
            return np.ones(0, np.float32)
        assert self.date is not None, "settled when the run was prepared"
        days = np.maximum(_seconds_of(self.date) - seconds, 0) / _DAY_S
        return np.maximum(0.5 ** (days / self.half_life_days), self.floor).astype(np.float32)

    def taken_from_data(self, manifest: Manifest) -> dict[str, Any]:
        found = largest(manifest, self.column, None if self.date else "Give reweight.time_decay.date.")
        if found is None:
            return {}
        newest = max(value for value, _ in found)
        moment = self._moment(newest, manifest)
        if self.date is None and moment > datetime.now(UTC) + timedelta(days=_CLOCKS_DIFFER_DAYS):
            raise UserError(
                f"{manifest.root}: column {self.column!r} has {newest}, which as {moment:%Y-%m-%d} is still to come: "
                "all other rows would be old\nCorrect the column or reweight.time_decay.unit, or give a date."
            )
        date = self.date or moment.replace(tzinfo=None).isoformat()
        self._refuse_to_weigh_nothing([(self._moment(value, manifest), rows) for value, rows in found], date, manifest)
        return {} if self.date else {"date": date}

    def _refuse_to_weigh_nothing(self, newest: list[tuple[datetime, int]], date: str, manifest: Manifest) -> None:
        """newest: the newest row of each row group, and its rows."""
        ages = [max(_seconds_of(date) - moment.timestamp(), 0) / _DAY_S for moment, _ in newest]
        weighty = [max(0.5 ** (days / self.half_life_days), self.floor) >= _NOTHING for days in ages]
        rows = sum(count for (_, count), counts in zip(newest, weighty, strict=True) if counts)
        if sum(weighty) > 1 or 2 * rows > sum(count for _, count in newest):
            return
        raise UserError(
            f"{manifest.root}: counted from {date} by column {self.column!r}, at most {rows:,} rows weigh anything\n"
            "Set reweight.time_decay.unit, date or half_life_days to fit the column, or correct its newest row."
        )

    def _moment(self, latest: Any, manifest: Manifest) -> datetime:
        seconds = float(self._seconds(pa.array([latest]), f"{manifest.root}: column {self.column!r}")[0])
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError):
            raise UserError(
                f"{manifest.root}: column {self.column!r} has {latest}, which is no date in {self.unit}\n"
                f"Set reweight.time_decay.unit to one of: {', '.join(_UNITS)}."
            ) from None

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


build = TimeDecay
