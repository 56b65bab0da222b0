"""Files that break under a run: a message that names them, or their rows skipped. Never wrong data."""

import errno
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.schema import DataConfig
from tests.trainer.data import rows
from trainer.data.dataset.faults import DataError, StorageUnavailable, is_temporary, unreadable, until_answered
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import build_manifest
from trainer.data.reading.decode import Decoder

ROWS_A, ROWS_B = 90, 60  # row groups of 30


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    rows.write(tmp_path, {"a.parquet": ROWS_A, "b.parquet": ROWS_B}, 30)
    return build_manifest(str(tmp_path), "train")


def config(**changes) -> DataConfig:
    settings = {"root": "", "global_batch_size": 16, "lanes": 4, "shuffle_window": 16, "threads": 2}
    return DataConfig(**settings | changes)


def place(manifest: Manifest, name: str) -> Path:
    return Path(manifest.root) / name


def flip_a_byte_of_a_page(path: Path, row_group: int) -> None:
    column = pq.read_metadata(path).row_group(row_group).column(0)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 5] ^= 0x10
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def replace_by_another(path: Path) -> None:
    pq.write_table(rows.table(0, ROWS_B + 1), path, row_group_size=30)


def replace_by_one_of_the_same_size(path: Path) -> None:
    content = bytearray(path.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little")
    content[-8 - footer // 2] ^= 0x01
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, "cannot be read"),
        (truncate, "was replaced or changed"),
        (replace_by_another, "was replaced or changed"),
        (replace_by_one_of_the_same_size, "footer"),
        (lambda path: flip_a_byte_of_a_page(path, 1), "CRC"),
        (lambda path: path.write_bytes(b""), "was replaced or changed"),
    ],
)
def test_a_harmed_file_is_named(manifest: Manifest, harm, message: str) -> None:
    harm(place(manifest, "b.parquet"))
    with pytest.raises(DataError, match=message) as caught:
        list(rows.reader(manifest, config()).batches(0))
    assert "b.parquet" in str(caught.value).splitlines()[0]
    assert len(str(caught.value).splitlines()) == 2


def test_a_file_replaced_between_two_reads_is_noticed(manifest: Manifest) -> None:
    reader = rows.reader(manifest, config())
    list(reader.batches(0))
    replace_by_one_of_the_same_size(place(manifest, "b.parquet"))
    with pytest.raises(DataError, match=r"b\.parquet"):
        list(reader.batches(1))


@pytest.mark.parametrize("on_error", ["fail", "quarantine"])
def test_no_flipped_bit_gives_wrong_rows(manifest: Manifest, on_error: str) -> None:
    path, rng = place(manifest, "b.parquet"), np.random.default_rng(5)
    whole = path.read_bytes()
    pages = pq.read_metadata(path).row_group(0).column(0).dictionary_page_offset or 4
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    raised = 0
    for at in rng.integers(pages, len(whole) - footer, 25):
        content = bytearray(whole)
        content[at] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        reader = rows.reader(manifest, config(on_error=on_error, max_quarantined_fraction=0.9))
        try:
            seen = rows.everything(reader.batches(0))  # looks at every value
        except DataError:
            raised += 1
            continue
        lost = sum(entry.rows for entry in reader.quarantined)
        raised += bool(lost)
        assert set(seen.values()) == {1}
        assert len(seen) == ROWS_A + ROWS_B - lost
    assert raised >= 10  # the rest hit page headers, where statistics are that nobody reads


def test_a_passing_fault_is_read_again(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    read, failed = Decoder._read, set()

    def fail_once(self: Decoder, group, where: str) -> pa.Table:
        if where not in failed:
            failed.add(where)
            raise DataError(f"{where} cannot be read: connection reset\nWait.")
        return read(self, group, where)

    monkeypatch.setattr(Decoder, "_read", fail_once)
    assert rows.everything(rows.reader(manifest, config()).batches(0)) == Counter(range(ROWS_A + ROWS_B))
    assert len(failed) == len(manifest.row_groups)


def test_quarantined_rows_keep_their_places(manifest: Manifest) -> None:
    data = config(on_error="quarantine", max_quarantined_fraction=0.5)
    whole = [rows.check(batch) for batch in rows.reader(manifest, data).batches(0)]
    flip_a_byte_of_a_page(place(manifest, "a.parquet"), 1)
    reader = rows.reader(manifest, data)
    batches = list(reader.batches(0))
    lost = set(range(30, 60))
    assert [rows.check(batch) for batch in batches] == [[r for r in batch if r not in lost] for batch in whole]
    assert [len(batch.labels) for batch in batches] == [16] * reader.steps_per_epoch
    (entry,) = reader.quarantined
    assert (entry.file, entry.row_group, entry.rows) == ("a.parquet", 1, 30)
    assert "CRC" in entry.reason


def test_a_new_reader_leaves_out_what_an_earlier_one_did(manifest: Manifest) -> None:
    data = config(on_error="quarantine", max_quarantined_fraction=0.5)
    path = place(manifest, "a.parquet")
    whole = path.read_bytes()
    flip_a_byte_of_a_page(path, 0)
    reader = rows.reader(manifest, data)
    seen = rows.everything(reader.batches(0))
    path.write_bytes(whole)
    again = rows.reader(manifest, data, quarantined=reader.quarantined)
    assert rows.everything(again.batches(0)) == seen == Counter(range(30, ROWS_A + ROWS_B))
    assert again.quarantined == reader.quarantined


def test_quarantine_has_a_limit(manifest: Manifest) -> None:
    place(manifest, "a.parquet").unlink()
    with pytest.raises(DataError, match=r"data\.max_quarantined_fraction=0\.3"):
        list(rows.reader(manifest, config(on_error="quarantine", max_quarantined_fraction=0.3)).batches(0))


class Hang:
    """Reads of one row group that hang, the first `times` of them, until the end of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.tries, self.end = 0, threading.Event()
        read = Decoder._read

        def hang(decoder: Decoder, group, where: str) -> pa.Table:
            if where.endswith("b.parquet, row group 1"):
                self.tries += 1
                if self.tries <= times:
                    self.end.wait()
            return read(decoder, group, where)

        monkeypatch.setattr(Decoder, "_read", hang)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_hung_read_is_tried_again(manifest: Manifest, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    hang = Hang(monkeypatch, times=1)
    batches = rows.reader(manifest, config(read_timeout_s=0.3, threads=threads)).batches(0)
    assert rows.everything(batches) == Counter(range(ROWS_A + ROWS_B))
    assert hang.tries == 2
    hang.end.set()


@pytest.mark.parametrize("on_error", ["fail", "quarantine"])
def test_a_read_that_hangs_twice_is_given_up(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, on_error: str
) -> None:
    monkeypatch.setattr("trainer.data.reading.prefetch._STOP_S", 0.1)
    hang, started = Hang(monkeypatch, times=2), time.monotonic()
    data = config(read_timeout_s=0.3, on_error=on_error, max_quarantined_fraction=0.5)
    reader = rows.reader(manifest, data)
    if on_error == "fail":
        with pytest.raises(StorageUnavailable, match=r"b\.parquet, row group 1 was not read within 0\.3 s, twice"):
            list(reader.batches(0))
    else:
        assert rows.everything(reader.batches(0)) == Counter(range(ROWS_A + ROWS_B - 30))
        assert "not read within" in reader.quarantined[0].reason
    assert time.monotonic() - started < 60
    hang.end.set()


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), True),
        (TimeoutError(), True),
        (OSError("When reading x: AWS Error SLOW_DOWN during GetObject operation: Please reduce"), True),
        (OSError("AWS Error UNKNOWN (HTTP status 503) during GetObject operation: No response body."), True),
        (OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7"), True),
        (OSError("google::cloud::Status(UNAVAILABLE: Retry policy exhausted)"), True),
        (OSError("AWS Error UNKNOWN (HTTP status 403) during GetObject operation"), False),
        (OSError("AWS Error ACCESS_DENIED during GetObject operation"), False),
        (OSError("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: 503 objects"), False),
        (OSError("google::cloud::Status(PERMISSION_DENIED: no)"), False),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (OSError("could not verify page integrity, CRC checksum verification failed for page_ordinal 0"), False),
        (OSError("Unexpected end of stream"), False),
        (pa.ArrowInvalid("Parquet file size is 0 bytes"), False),
    ],
)
def test_what_passes(error: Exception, passes: bool) -> None:
    assert is_temporary(error) is passes
    found = unreadable("x", error, "Restore it.")
    assert isinstance(found, StorageUnavailable if passes else DataError)
    assert "data." not in str(found), "score reads without a config"


def test_a_storage_is_asked_again_until_it_answers() -> None:
    asked, again = [], []

    def call() -> int:
        asked.append(time.monotonic())
        if len(asked) < 4:
            raise StorageUnavailable("no answer")
        return 7

    assert until_answered(call, 60, lambda: again.append(1)) == 7
    assert len(again) == 3
    pauses = np.diff(asked)
    assert pauses[2] > pauses[0]


def test_a_storage_is_not_asked_for_ever() -> None:
    def call() -> int:
        raise StorageUnavailable("no answer")

    started = time.monotonic()
    with pytest.raises(StorageUnavailable):
        until_answered(call, 0.8)
    assert time.monotonic() - started < 20
