"""Rows weighed by age: halves by half-life, in any type of time; the newest row is found in footers."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.errors import UserError
from trainer.data.columns.reweighting.time_decay import Settings, build
from trainer.data.dataset.scan import build_manifest

DAYS = [date(2022, 4, 26), date(2022, 5, 3), date(2022, 5, 10), date(2022, 5, 17)]
SECONDS = [int(datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp()) for d in DAYS]


def factors(column: pa.Array, **settings) -> list[float]:
    values = {"half_life_days": 7, "date": "2022-05-10", **settings}
    rule = build(Settings.model_validate({"column": "time", **values}))
    return rule(pa.table({"time": column}), np.ones(len(column), np.float32), "f.parquet").tolist()


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        (pa.array(DAYS), "s"),
        (pa.array(DAYS, pa.date64()), "s"),
        (pa.array([datetime(d.year, d.month, d.day) for d in DAYS], pa.timestamp("ns")), "s"),
        (pa.array(SECONDS, pa.timestamp("s", "Asia/Tokyo")), "s"),
        (pa.array(SECONDS), "s"),
        (pa.array([1000 * s for s in SECONDS]), "ms"),
        (pa.array([s // 86_400 for s in SECONDS], pa.int32()), "days"),
    ],
)
def test_halves_with_every_half_life(column: pa.Array, unit: str) -> None:
    assert factors(column, unit=unit) == pytest.approx([0.25, 0.5, 1, 1], rel=1e-6)  # after the date: no more than 1


def test_the_floor_and_a_date_with_hours() -> None:
    assert factors(pa.array(DAYS), floor=0.4) == pytest.approx([0.4, 0.5, 1, 1])
    assert factors(pa.array([DAYS[2]]), date="2022-05-10T12:00", half_life_days=0.5) == [0.5]
    assert factors(pa.array([DAYS[2]]), date="2022-05-10T12:00+12:00") == [1]


@given(st.lists(st.integers(0, 2**33), min_size=1, max_size=9), st.floats(0.01, 1e4))
def test_older_never_weighs_more(seconds: list[int], half_life: float) -> None:
    found = factors(pa.array(sorted(seconds)), half_life_days=half_life)
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] <= 1


def test_a_missing_time_or_another_type_is_refused() -> None:
    with pytest.raises(UserError, match=r"f\.parquet, row 1: column 'time' is None, which is no time"):
        factors(pa.array([1, None]))
    with pytest.raises(UserError, match=r"column 'time' has type string"):
        factors(pa.array(["2022-05-10"]))
    with pytest.raises(ValidationError, match="isoformat"):
        factors(pa.array(DAYS), date="10.5.2022")


@pytest.mark.parametrize("type_", [pa.date32(), pa.timestamp("us"), pa.timestamp("ms", "UTC"), pa.int64()])
def test_the_newest_row_is_found_without_reading_rows(tmp_path: Path, type_: pa.DataType) -> None:
    newest = datetime(2022, 5, 17, 6)
    times = [newest - timedelta(days=number) for number in (3, 0, 9)]
    for number, time in enumerate(times):
        epoch = time.replace(tzinfo=UTC)
        value = int(epoch.timestamp()) if pa.types.is_integer(type_) else time.date() if type_ == pa.date32() else epoch
        pq.write_table(pa.table({"time": pa.array([value, value], type_)}), tmp_path / f"{number}.parquet")
    settled = build(Settings(column="time", half_life_days=1)).taken_from_data(build_manifest(str(tmp_path)))
    assert settled == {"date": "2022-05-17T00:00:00" if type_ == pa.date32() else "2022-05-17T06:00:00"}


def test_a_footer_that_does_not_say_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"time": [1, 2]}), tmp_path / "silent.parquet", write_statistics=False)
    with pytest.raises(UserError, match=r"silent\.parquet: the footer does not say .*'time'\n.*time_decay\.date"):
        build(Settings(column="time", half_life_days=1)).taken_from_data(build_manifest(str(tmp_path)))


def settle(root: Path, times: pa.Array, row_group_size: int = 1000, **settings) -> dict:
    pq.write_table(pa.table({"time": times}), root / "a.parquet", row_group_size=row_group_size)
    values = {"column": "time", "half_life_days": 7, **settings}
    return build(Settings.model_validate(values)).taken_from_data(build_manifest(str(root)))


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_another_unit_than_the_columns_is_refused_before_training(tmp_path: Path, unit: str) -> None:
    factor = {"ms": 10**3, "us": 10**6}[unit]
    times = pa.array([seconds * factor for seconds in SECONDS])
    with pytest.raises(UserError, match=r"'time' has \d+, which is no date in s\n.*unit to one of: s, ms, us, days"):
        settle(tmp_path, times)
    assert settle(tmp_path, times, unit=unit) == {"date": "2022-05-17T00:00:00"}
    with pytest.raises(UserError, match="counted from 2022-05-17 by column 'time', at most 0 rows weigh anything"):
        settle(tmp_path, pa.array(SECONDS), unit=unit, date="2022-05-17")


@pytest.mark.parametrize("far", [date(9999, 12, 31), date.today() + timedelta(days=30)])
def test_a_newest_row_that_is_still_to_come_is_refused_unless_a_date_is_given(tmp_path: Path, far: date) -> None:
    times = pa.array([*DAYS, far])
    with pytest.raises(UserError, match=f"column 'time' has {far}, which as {far} is still to come"):
        settle(tmp_path, times)
    assert settle(tmp_path, times, date="2022-05-17") == {}


def test_one_late_row_that_leaves_all_others_without_weight_is_refused(tmp_path: Path) -> None:
    times = pa.array([*DAYS, *DAYS, date(2024, 1, 1)])
    with pytest.raises(UserError, match="from 2024-01-01T00:00:00 by column 'time', at most 1 rows weigh anything"):
        settle(tmp_path, times, row_group_size=4)
    assert settle(tmp_path, times, row_group_size=4, floor=0.1) == {"date": "2024-01-01T00:00:00"}
    assert settle(tmp_path, times, row_group_size=4, half_life_days=100) == {"date": "2024-01-01T00:00:00"}


def test_a_given_date_needs_no_statistics(tmp_path: Path) -> None:
    pq.write_table(pa.table({"time": [1, 2]}), tmp_path / "silent.parquet", write_statistics=False)
    assert (
        build(Settings(column="time", half_life_days=1, date="2022-05-17")).taken_from_data(
            build_manifest(str(tmp_path))
        )
        == {}
    )
