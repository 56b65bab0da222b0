"""Reading from an object store: few requests, and a network that fails now and then."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import DataConfig
from tests.trainer.data import rows
from tests.trainer.data.object_store import BUCKET, ObjectStore, object_store
from trainer.data.dataset.faults import DataError, StorageUnavailable
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import build_manifest
from trainer.data.dataset.source import open_source

ROWS, ROWS_PER_ROW_GROUP = 600, 100


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        root = tmp_path_factory.mktemp("rows")
        rows.write(root, {"day=1/a.parquet": ROWS // 2, "day=2/b.parquet": ROWS // 2}, ROWS_PER_ROW_GROUP)
        with object_store() as store:
            remote = store.file_system()
            fs.copy_files(str(root), f"{BUCKET}/data", destination_filesystem=remote)
            yield store


@pytest.fixture
def manifest(store: ObjectStore) -> Manifest:
    store.faults, store.latency_s, store.is_down = [], 0.0, False
    found = build_manifest(store.url("/data"), "train")
    store.requests.clear()
    return found


def config(**changes) -> DataConfig:
    settings = {"root": "", "global_batch_size": 40, "lanes": 2, "shuffle_window": 50}
    return DataConfig(**settings | changes)


def read_all(manifest: Manifest, **changes) -> Counter[int]:
    return rows.everything(rows.reader(manifest, config(**changes)).batches(0))


def test_a_bucket_is_read_whole(store: ObjectStore, manifest: Manifest) -> None:
    assert manifest.partitions == ("day=1", "day=2")
    assert read_all(manifest) == Counter(range(ROWS))


def test_requests_of_a_row_group(store: ObjectStore, manifest: Manifest) -> None:
    """The size, the coalesced columns; and once for a file its footer."""
    reader = rows.reader(manifest, config(shuffle_window=0, lanes=1), shuffle=False)
    read = [reader._decoder(number) for number in range(3)]
    assert sum(len(block) for block in read) == 3 * ROWS_PER_ROW_GROUP
    kinds = Counter((method, bool(part)) for method, _, part in store.requests)
    assert kinds == {("HEAD", False): 3, ("GET", True): 3 + 1}


def test_columns_that_are_not_needed_are_not_read(store: ObjectStore, tmp_path: Path) -> None:
    wide = rows.table(0, 5000)
    for name in ("a_before", "z_after"):
        wide = wide.append_column(name, wide["number"])
    wide = wide.select(["a_before", *wide.column_names[:-2], "z_after"])
    place = f"{BUCKET}/wide/a.parquet"
    pq.write_table(wide, place, filesystem=store.file_system(), write_page_checksum=True, use_dictionary=False)
    manifest = build_manifest(store.url("/wide"))
    store.requests.clear()
    assert len(rows.reader(manifest, config())._decoder(0)) == 5000
    (columns,) = [part for method, _, part in store.requests if method == "GET" and not part.endswith("footer")][1:]
    start, stop = map(int, columns.removeprefix("bytes=").split("-"))
    group = pq.read_metadata(place, filesystem=store.file_system()).row_group(0)
    sizes = [group.column(i).total_compressed_size for i in range(group.num_columns)]
    assert stop - start + 1 == sum(sizes[1:-1])


@pytest.mark.parametrize("fault", ["reset", "503", "cut", 0.3])
def test_a_fault_now_and_then(store: ObjectStore, manifest: Manifest, fault: str | float) -> None:
    store.faults = [fault, fault]
    assert read_all(manifest) == Counter(range(ROWS))
    assert not store.faults


def test_a_fault_while_the_manifest_is_built(store: ObjectStore, manifest: Manifest) -> None:
    store.faults = ["reset", "503", "cut"]
    assert build_manifest(store.url("/data"), "train") == manifest


@pytest.mark.parametrize("on_error", ["fail", pytest.param("quarantine", marks=pytest.mark.slow)])
def test_an_outage_is_waited_out(store: ObjectStore, manifest: Manifest, on_error: str) -> None:
    store.is_down = True
    threading.Timer(2, setattr, (store, "is_down", False)).start()
    reader = rows.reader(manifest, config(read_timeout_s=30, on_error=on_error))
    assert rows.everything(reader.batches(0)) == Counter(range(ROWS))
    assert not reader.quarantined


def test_an_outage_is_waited_out_while_the_manifest_is_built(store: ObjectStore, manifest: Manifest) -> None:
    store.is_down = True
    threading.Timer(2, setattr, (store, "is_down", False)).start()
    assert build_manifest(store.url("/data"), "train", timeout_s=30) == manifest


@pytest.mark.parametrize("on_error", [pytest.param("fail", marks=pytest.mark.slow), "quarantine"])
def test_a_long_outage_is_nobodys_mistake(store: ObjectStore, manifest: Manifest, on_error: str) -> None:
    """The worker group starts again; no row is skipped for good."""
    store.is_down = True
    reader, started = rows.reader(manifest, config(read_timeout_s=3, on_error=on_error)), time.monotonic()
    with pytest.raises(StorageUnavailable, match=r"503.*\nThe storage does not answer"):
        list(reader.batches(0))
    assert 2 < time.monotonic() - started < 60  # it would be for ever
    assert not reader.quarantined
    with pytest.raises(StorageUnavailable):
        build_manifest(store.url("/data"), "train", timeout_s=1)


def test_a_hung_request_is_made_again(store: ObjectStore, manifest: Manifest) -> None:
    store.faults = [4.0]
    started = time.monotonic()
    batches = rows.reader(manifest, config(read_timeout_s=0.7)).batches(0)
    assert rows.check(next(batches))
    assert time.monotonic() - started < 3.5
    assert sum(rows.everything(batches).values()) == ROWS - 40


def test_reads_overlap(store: ObjectStore, manifest: Manifest) -> None:
    store.latency_s = 0.2
    started = time.monotonic()
    assert read_all(manifest, lanes=1, shuffle_window=0) == Counter(range(ROWS))
    elapsed, in_a_row = time.monotonic() - started, len(store.requests) * store.latency_s
    assert elapsed < 0.75 * in_a_row


def test_a_replaced_object_is_noticed(store: ObjectStore, manifest: Manifest) -> None:
    place = f"{BUCKET}/data/train/day=2/b.parquet"
    remote = store.file_system()
    whole = remote.open_input_file(place).read()
    try:
        with remote.open_output_stream(place) as file:
            file.write(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
        with pytest.raises(DataError, match=r"b\.parquet was replaced or changed"):
            rows.reader(manifest, config())._decoder(5)
    finally:
        with remote.open_output_stream(place) as file:
            file.write(whole)


def test_what_is_not_there(store: ObjectStore, manifest: Manifest) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        build_manifest(store.url("/data"), "absent")
    with pytest.raises(UserError, match="cannot be read"):
        build_manifest(f"s3://no-such-bucket/data?{store.options}")


def test_urls() -> None:
    with pytest.raises(UserError, match="holds a key") as caught:
        open_source("s3://AKIA:secret@bucket/data")
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="no option 'regoin'"):
        open_source("s3://bucket/data?regoin=x")
    source = open_source("s3://bucket/data?region=eu-west-1&scheme=http", "train")
    assert (source.folder, source.root) == ("bucket/data/train", "s3://bucket/data/train?region=eu-west-1&scheme=http")
