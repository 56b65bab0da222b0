"""What belongs to a data set: names, links, and tables that are refused."""

import io
import os
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from tests.trainer.data.object_store import BUCKET, object_store
from trainer.data.dataset.listing import Listing, list_files, skipped_line
from trainer.data.dataset.source import open_source

TABLE = pa.table({"x": [1]})


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(TABLE, root / path)


def listed(root: Path | str) -> Listing:
    return list_files(open_source(str(root)), 10)


def paths(root: Path | str) -> list[str]:
    return [file.path for file in listed(root).files]


def skipped(root: Path | str) -> dict[str, str]:
    return dict(listed(root).skipped)


def test_names_of_data(tmp_path: Path) -> None:
    data = [
        "000000_0",
        "A.PARQUET",
        "b.parq",
        "c.Pq",
        "_day=1/000000_0",
        "day=2.5/part-00000-f00",
        "x.parquet/a.parquet",
    ]
    write(tmp_path, *data)
    assert sorted(paths(tmp_path)) == sorted(data)
    assert not listed(tmp_path).skipped


def test_what_is_skipped_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", "_temporary/0/b.parquet", ".c.parquet", "d=1/.e/f.parquet", "g.parquet._COPYING_")
    write(tmp_path, "h.parquet.bak")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "000000_1").touch()
    (tmp_path / "README").write_text("what this is")
    os.mkfifo(tmp_path / "pipe.parquet")
    assert paths(tmp_path) == ["a.parquet"]
    assert skipped(tmp_path) == {
        "_temporary": "hidden",
        ".c.parquet": "hidden",
        "d=1/.e": "hidden",
        "g.parquet._COPYING_": "hidden",
        "_SUCCESS": "hidden",
        "h.parquet.bak": "not named as Parquet",
        "000000_1": "empty",
        "README": "not Parquet",
        "pipe.parquet": "not a file",
    }
    line = skipped_line("/data", listed(tmp_path).skipped)
    assert line is not None
    assert line.startswith("skipped in /data: 1 empty (000000_1); 5 hidden (")
    assert line.endswith(
        ", ...); 1 not Parquet (README); 1 not a file (pipe.parquet); 1 not named as Parquet (h.parquet.bak)"
    )


def test_a_folder_without_data_says_what_it_skipped(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("1")
    with pytest.raises(UserError, match="has no Parquet file") as caught:
        listed(tmp_path)
    assert "rows.csv" in str(caught.value)


def test_a_cut_file_without_a_suffix_is_data(tmp_path: Path) -> None:
    (tmp_path / "000000_0").write_bytes(b"PAR1 and then nothing")
    assert paths(tmp_path) == ["000000_0"]


def test_links_add_nothing_twice(tmp_path: Path) -> None:
    root = tmp_path / "data" / "train"
    write(root, "day=3/a.parquet", "day=4/a.parquet")
    write(tmp_path / "data" / "validation", "a.parquet")
    write(tmp_path / "elsewhere", "day=5/a.parquet")
    for name, target in {
        "all": ".",
        "above": "..",
        "day=4/up": "..",
        "latest": "day=4",
        "b.parquet": "day=3/a.parquet",
        "more": "../../elsewhere",
        "again": "../../elsewhere/day=5",
    }.items():
        (root / name).symlink_to(target)
    found, left = paths(root), skipped(root)
    assert len(found) == 3
    assert {"day=3/a.parquet", "day=4/a.parquet"} < set(found)
    assert left["above"] == "link to a folder above"
    assert left["latest -> day=4"] == left["b.parquet -> day=3/a.parquet"] == left["all -> ."] == "linked twice"


def test_linked_data_is_read(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "day=1/a.parquet", "b.parquet")
    root = tmp_path / "train"
    root.mkdir()
    (root / "days").symlink_to("../elsewhere/day=1")
    (root / "c.parquet").symlink_to("../elsewhere/b.parquet")
    assert paths(root) == ["c.parquet", "days/a.parquet"]
    (tmp_path / "link").symlink_to("train")
    assert paths(tmp_path / "link") == ["c.parquet", "days/a.parquet"]


def test_a_link_to_data_that_is_gone_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet")
    (tmp_path / "notes").symlink_to("nowhere")
    assert skipped(tmp_path) == {"notes": "broken link"}
    (tmp_path / "b.parquet").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"b\.parquet is a link to a file that is not there"):
        listed(tmp_path)


@pytest.mark.parametrize("name", [b"caf\xe9.parquet", b"caf\xe9/a.parquet", b"caf\xe9"])
def test_names_that_are_not_utf8(tmp_path: Path, name: bytes) -> None:
    write(tmp_path, "a.parquet")
    place = os.fsencode(tmp_path) + b"/" + name
    os.makedirs(os.path.dirname(place), exist_ok=True)
    os.rename(tmp_path / "a.parquet", place)
    with pytest.raises(UserError, match=r"caf\\xe9.*: its name is not UTF-8"):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        ("metadata/v1.metadata.json.gz", "an Iceberg table"),
        ("metadata/snap-17-1-ab.avro", "an Iceberg table"),
        ("snapshot/LATEST", "a Paimon table"),
        ("_delta_log/00000000000000000000.json", "a Delta Lake table"),
        ("metadata/v1.metadata.json", "an Iceberg table"),
        ("metadata/00001-0c2b.gz.metadata.json", "an Iceberg table"),
        (".hoodie/hoodie.properties", "a Hudi table"),
        ("_spark_metadata/0", "the output of a Spark stream"),
    ],
)
def test_tables_with_dead_files_are_refused(tmp_path: Path, mark: str, name: str) -> None:
    write(tmp_path, "train/split=a/day=1/a.parquet")
    place = tmp_path / "train" / mark
    place.parent.mkdir()
    place.touch()
    for root in (tmp_path, tmp_path / "train", tmp_path / "train/split=a", f"local://{tmp_path}/train/split=a/day=1"):
        with pytest.raises(UserError, match=f"train.* is {name}"):
            listed(root)


@pytest.mark.parametrize("folder", ["base_0000002", "delta_0000001_0000001_0000", "day=1/delete_delta_0000003_0000003"])
def test_transactional_hive_tables_are_refused(tmp_path: Path, folder: str) -> None:
    write(tmp_path, f"{folder}/000000_0")
    with pytest.raises(UserError, match="is a transactional Hive table"):
        listed(tmp_path)


def test_keys_of_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    content = io.BytesIO()
    pq.write_table(TABLE, content)
    with object_store() as store:
        client = boto3.client("s3", endpoint_url=f"http://{store.server}", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        for key in ("a.PARQUET", "_day=1/000000_0", "_temporary/0/b.parquet", "_SUCCESS", "_x//y.parquet", "c.csv"):
            client.put_object(Bucket=BUCKET, Key=f"train/{key}", Body=content.getvalue())
        client.put_object(Bucket=BUCKET, Key="train/day=2_$folder$", Body=b"")
        found = listed(store.url("/train"))
        assert [file.path for file in found.files] == ["a.PARQUET", "_day=1/000000_0"]
        assert dict(found.skipped) == {
            "_temporary": "hidden",
            "_SUCCESS": "hidden",
            "_x": "hidden",
            "c.csv": "not named as Parquet",
            "day=2_$folder$": "empty",
        }
        client.put_object(Bucket=BUCKET, Key="train//a.parquet", Body=content.getvalue())
        with pytest.raises(UserError, match=r"train//a\.parquet: its key has two slashes in a row"):
            listed(store.url("/train"))
        client.put_object(Bucket=BUCKET, Key="train/_delta_log/0.json", Body=b"{}")
        for root in ("/train", "/train/_day=1"):
            with pytest.raises(UserError, match="is a Delta Lake table"):
                listed(store.url(root))
