"""What `inspect` says of a data set: layout, columns, advice; and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from tests.trainer.data import rows
from trainer.data.inspection import data_report
from trainer.data.inspection.inspect_data import inspect_data


def write(path: Path, table: pa.Table, **options) -> None:
    """Writes a table; pages have checksums unless an option says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **{"write_page_checksum": True, **options})


def inspected(path: Path, **options) -> tuple[str, dict]:
    """Text and values, after a look at what holds for all of them."""
    text, values = inspect_data(str(path), **options)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["kind"] == "data"
    return text, values


def test_a_data_set_part_by_part(tmp_path: Path) -> None:
    rows.write(tmp_path, {"a.parquet": 50, "day=1/b.parquet": 30}, 20)
    write(tmp_path / "validation" / "a.parquet", rows.table(0, 10))
    text, values = inspected(tmp_path)
    assert list(values["parts"]) == ["train", "validation"]
    assert values["advice"] == []
    part = values["parts"]["train"]
    assert (part["files"], part["rows"]) == (2, 80)
    assert part["bytes"] == sum(path.stat().st_size for path in (tmp_path / "train").rglob("*.parquet"))
    groups = part["row_groups"]
    assert (groups["count"], groups["read"]) == (5, 5)
    assert groups["rows"] == {"min": 10, "median": 20, "max": 20}
    assert 0 < groups["decoded_bytes"]["min"] <= groups["decoded_bytes"]["median"] <= groups["decoded_bytes"]["max"]
    assert (part["codecs"], part["page_checksums"]) == (["SNAPPY"], "all")
    columns = part["columns"]
    assert (columns["row"]["distinct"], columns["row"]["min"], columns["row"]["max"]) == (80, 0, 79)
    assert (columns["tags"]["type"], columns["tags"]["mean_length"], columns["tags"]["max_length"]) == (
        "list<int64>",
        1.5,
        3,
    )
    assert columns["tags"]["distinct"] == 120
    assert columns["odd"]["positive_rate"] == 0.5
    assert columns["half"]["null_rate"] == 27 / 80
    assert part["advice"] == [
        "row groups are small, 20 rows: write 10,000 to 1,000,000",
        "columns always of one value: day; nothing can be learned from them",
    ]
    assert "0/1 columns, share of ones: odd 50.00%" in text
    assert values["parts"]["validation"]["advice"] == []  # one row group, which cannot be larger


def test_any_folder_is_one_part(tmp_path: Path) -> None:
    rows.write(tmp_path, {"day=1/a.parquet": 5, "day=2/a.parquet": 5}, 5)
    values = inspected(tmp_path / "train")[1]
    assert {name: part["rows"] for name, part in values["parts"].items()} == {"train": 10}
    assert list(inspected(tmp_path / "train" / "day=1")[1]["parts"]) == ["day=1"]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("use_dictionary", [True, False])
@pytest.mark.parametrize("checksums", [[True, True], [True, False], [False, False]])
def test_page_checksums(tmp_path: Path, version: str, use_dictionary: bool, checksums: list[bool]) -> None:
    for number, checksum in enumerate(checksums):
        options = {"use_dictionary": use_dictionary, "data_page_version": version}
        write(tmp_path / f"{number}.parquet", rows.table(0, 2000), write_page_checksum=checksum, **options)
    part = inspected(tmp_path)[1]["parts"][tmp_path.name]
    assert part["page_checksums"] == {2: "all", 1: "some", 0: "none"}[sum(checksums)]
    assert any("checksums" in line for line in part["advice"]) == (not all(checksums))


def test_advice(tmp_path: Path) -> None:
    count = 1_000_001
    table = pa.table(
        {
            "id": pa.array(np.arange(count, dtype=np.int32) % 1000),
            "nothing": pa.nulls(count, pa.int64()),
            "wide_" * 30: pa.array(np.full(count, 7, np.int8)),
            "odd": pa.array(np.where(np.arange(count) % 2, np.nan, 1).astype(np.float32)),
        }
    )
    write(tmp_path / "a.parquet", table, compression="gzip", compression_level=1, row_group_size=count)
    advice = inspected(tmp_path)[1]["parts"][tmp_path.name]["advice"]
    assert len(advice) == 5
    for line, said in zip(advice, ("up to 1,000,001 rows", "codec GZIP", ": nothing;", "wide_", ": odd;"), strict=True):
        assert said in line


def test_row_groups_of_many_bytes(tmp_path: Path) -> None:
    texts = ["x" * (5 * 2**20)] * 52
    write(tmp_path / "a.parquet", pa.table({"text": texts}))
    assert any("260 MiB" in line for line in inspected(tmp_path)[1]["parts"][tmp_path.name]["advice"])


def test_schemas_that_differ(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a.parquet", pa.table({"id": [1, 2], "both": ["x", "y"]}))
    write(
        tmp_path / "train" / "b.parquet", pa.table({"id": ["1", "2"], "both": pa.array(["x", "y"], pa.large_string())})
    )
    write(tmp_path / "test" / "c.parquet", pa.table({"both": ["x", "y"]}))
    text, values = inspected(tmp_path)
    assert values["advice"] == [
        "column 'id' has several types: int64 in train/a.parquet, string in train/b.parquet",
        "missing in 1 of 3 files, such as test/c.parquet: id",
    ]
    assert values["parts"]["train"]["columns"]["id"]["type"] == "int64 | string"
    assert values["parts"]["train"]["columns"]["id"]["distinct"] == 4
    assert "several types" in text


def test_a_sample_is_spread_over_the_part(tmp_path: Path) -> None:
    rows.write(tmp_path, {"a.parquet": 60, "b.parquet": 40}, 10)
    text, values = inspected(tmp_path, row_groups=3)
    part = values["parts"]["train"]
    assert (part["rows"], part["row_groups"]["count"], part["row_groups"]["read"]) == (100, 10, 3)
    numbers = part["columns"]["row"]
    assert (numbers["rows"], numbers["min"], numbers["max"]) == (30, 0, 99)
    assert "of a sample: 3 row groups" in text


def test_parts_and_files_without_rows(tmp_path: Path) -> None:
    rows.write(tmp_path, {"a.parquet": 5, "empty.parquet": 0}, 5)
    write(tmp_path / "validation" / "empty.parquet", rows.table(0, 0))
    (tmp_path / "test").mkdir()
    text, values = inspected(tmp_path)
    assert {name: (part["files"], part["rows"]) for name, part in values["parts"].items()} == {
        "train": (2, 5),
        "validation": (1, 0),
        "test": (0, 0),
    }
    empty = values["parts"]["validation"]
    assert empty["columns"]["row"]["null_rate"] is None
    assert (empty["row_groups"]["rows"], empty["page_checksums"]) == (None, "unknown")
    assert (
        empty["advice"] == values["parts"]["test"]["advice"] == ["the part has no row: write some or delete the folder"]
    )
    assert text.count("has no row") == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    rows.write(tmp_path, {"good.parquet": 50, "bad.parquet": 50}, 50)
    path = tmp_path / "train" / "bad.parquet"
    content = bytearray(path.read_bytes())
    first = pq.read_metadata(path).row_group(0).column(0)
    page = first.dictionary_page_offset or first.data_page_offset
    content[page + first.total_compressed_size - 2] ^= 4
    path.write_bytes({"cut": content[:-9], "flipped": content, "empty": b""}[damage])
    with pytest.raises(UserError, match=r"bad\.parquet") as caught:
        inspect_data(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 2


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Parquet file"):
        inspect_data(str(tmp_path))
    write(tmp_path / "train" / "a.parquet", rows.table(0, 0))
    with pytest.raises(UserError, match="without a row"):
        inspect_data(str(tmp_path))
    with pytest.raises(UserError, match="is a file"):
        inspect_data(str(tmp_path / "train" / "a.parquet"))


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (0.44123, "0.4412"),
        (27_284, "27,284"),
        (13_673.6, "13,674"),
        (20_220_425, "20,220,425"),
        (1.6513e12, "1.651e+12"),
        (-9_999_999.0, "-9,999,999"),
        (-99_999_999, "-1e+08"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_are_short(number: float, shown: str) -> None:
    assert data_report._number(number) == shown
