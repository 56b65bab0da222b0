"""The manifest: which files there are, in which order, and what is refused before a run starts."""

import dataclasses
import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from tests.trainer.data import rows
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import build_manifest


def test_files_are_ordered_by_folder_then_name(tmp_path: Path) -> None:
    names = [
        "day=2/a.parquet",
        "b.parquet",
        "day=10/x/a.parquet",
        "day=10/a.parquet",
        "day=10/b.parquet",
        "day=10-b/a.parquet",
    ]
    rows.write(tmp_path, dict.fromkeys(names, 3), 2)
    manifest = build_manifest(str(tmp_path), "train")
    paths = [file.path for file in manifest.files]
    assert paths == [
        "b.parquet",
        "day=2/a.parquet",
        "day=10/a.parquet",
        "day=10/b.parquet",
        "day=10/x/a.parquet",
        "day=10-b/a.parquet",
    ]
    assert manifest.partitions == ("", "day=2", "day=10", "day=10/x", "day=10-b")
    assert [part.tolist() for part in manifest.segments(by_partition=True)] == [
        [2, 1],
        [2, 1],
        [2, 1, 2, 1],
        [2, 1],
        [2, 1],
    ]
    assert [part.tolist() for part in manifest.segments(by_partition=False)] == [[2, 1] * 6]
    assert manifest.rows == 18


def test_json_round_trip_and_fingerprint(tmp_path: Path) -> None:
    rows.write(tmp_path, {"a.parquet": 50, "b.parquet": 7}, 20)
    manifest = build_manifest(str(tmp_path), "train")
    again = Manifest.from_json(json.loads(json.dumps(manifest.to_json())))
    assert again == manifest
    assert again.fingerprint == manifest.fingerprint
    os.rename(tmp_path / "train", tmp_path / "moved")
    assert build_manifest(str(tmp_path), "moved").fingerprint == manifest.fingerprint
    pq.write_table(rows.table(0, 7), tmp_path / "moved" / "b.parquet")
    assert build_manifest(str(tmp_path), "moved").fingerprint != manifest.fingerprint


def test_relative_roots_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.write(tmp_path, {"a.parquet": 5}, 20)
    monkeypatch.chdir(tmp_path)
    assert build_manifest(".", "train") == build_manifest(str(tmp_path), "train")


def test_local_urls(tmp_path: Path) -> None:
    rows.write(tmp_path, {"a.parquet": 5}, 20)
    for url in (f"file://{tmp_path}", f"local://{tmp_path}"):  # pyarrow's own, and one that only fsspec knows
        assert build_manifest(url, "train").fingerprint == build_manifest(str(tmp_path), "train").fingerprint


def test_known_files_are_not_read_again(tmp_path: Path) -> None:
    rows.write(tmp_path, {"a.parquet": 50, "b.parquet": 50}, 20)
    known = build_manifest(str(tmp_path), "train")
    (tmp_path / "train" / "a.parquet").write_bytes(b"x" * known.files[0].size)
    assert build_manifest(str(tmp_path), "train", known) == known
    with pytest.raises(UserError, match=r"a\.parquet"):
        build_manifest(str(tmp_path), "train")


def test_a_manifest_starts_with_its_earlier_self(tmp_path: Path) -> None:
    rows.write(tmp_path, {"d=1/a.parquet": 5}, 20)
    first = build_manifest(str(tmp_path), "train")
    rows.write(tmp_path, {"d=2/a.parquet": 5}, 20)
    second = build_manifest(str(tmp_path), "train", first)
    assert second.starts_with(first)
    assert not first.starts_with(second)
    rows.write(tmp_path, {"d=1/b.parquet": 5}, 20)
    assert not build_manifest(str(tmp_path), "train").starts_with(first)


def test_unequal_schemas_are_kept_once(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    for name, kind in (("a", pa.int32()), ("b", pa.int64()), ("c", pa.int32())):
        pq.write_table(pa.table({"x": pa.array([1], kind)}), folder / f"{name}.parquet")
    manifest = build_manifest(str(tmp_path), "train")
    assert [file.schema for file in manifest.files] == [0, 1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes"),
        (b"no parquet, but some bytes", "does not end as a Parquet file"),
        (b"PAR1" + b"x" * 20 + (10**6).to_bytes(4, "little") + b"PAR1", "has a damaged footer"),
        (b"PAR1" + b"x" * 20 + (20).to_bytes(4, "little") + b"PAR1", "has a damaged footer"),
    ],
)
def test_files_that_are_no_parquet(tmp_path: Path, content: bytes, message: str) -> None:
    rows.write(tmp_path, {"a.parquet": 3}, 2)
    (tmp_path / "train" / "b.parquet").write_bytes(content)
    with pytest.raises(UserError, match=rf"b\.parquet {message}"):
        build_manifest(str(tmp_path), "train")


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        build_manifest(str(tmp_path), "absent")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="has no Parquet file"):
        build_manifest(str(tmp_path), "train")
    pq.write_table(rows.table(0, 0), tmp_path / "train" / "a.parquet")
    with pytest.raises(UserError, match="without a row"):
        build_manifest(str(tmp_path), "train")
    with pytest.raises(UserError, match="cannot be opened"):
        build_manifest("nosuchscheme://bucket/data")


def test_empty_files_among_others_are_fine(tmp_path: Path) -> None:
    rows.write(tmp_path, {"a.parquet": 0, "b.parquet": 5}, 2)
    assert build_manifest(str(tmp_path), "train").rows == 5


def test_a_long_footer_is_read_whole(tmp_path: Path) -> None:
    names = [f"column_{i:04}_{'x' * 200}" for i in range(300)]
    (tmp_path / "train").mkdir()
    pq.write_table(pa.table({name: [1.0] for name in names}), tmp_path / "train" / "a.parquet")
    manifest = build_manifest(str(tmp_path), "train")
    assert manifest.schemas[0].names == names
    assert dataclasses.asdict(manifest.files[0])["rows"] == (1,)


@pytest.mark.slow
def test_many_row_groups(tmp_path: Path) -> None:
    """100,000 row groups of 42 columns: under 30 seconds, and the memory does not grow with their number."""
    columns = {f"column_{i}": list(range(400)) for i in range(42)}
    pq.write_table(pa.table(columns), tmp_path / "0.parquet", row_group_size=4)
    for number in range(1, 1000):
        os.link(tmp_path / "0.parquet", tmp_path / f"{number}.parquet")
    resident, started = _resident_mib(), time.perf_counter()
    manifest = build_manifest(str(tmp_path))
    assert len(manifest.row_groups) == 100_000
    assert time.perf_counter() - started < 30
    assert _resident_mib() - resident < 300
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_column_name_that_is_not_utf8_is_named_with_its_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"caf_": [1.0]}), tmp_path / "a.parquet", store_schema=False)
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes().replace(b"caf_", b"caf\xe9"))
    with pytest.raises(UserError, match=r"a.parquet has a column whose name is not UTF-8: 'caf\\\\xe9'\n"):
        build_manifest(str(tmp_path))
