"""How the waiting for new partitions ends, and what is said meanwhile. One process; several are in test_follow_run."""

import threading
import time
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.schema import Config, TrainingConfig
from tests.trainer.data import rows
from tests.trainer.data.dataset.test_follow import ROWS, add
from tests.trainer.data.dataset.test_follow import config as data_config
from trainer.data.dataset.faults import StorageUnavailable
from trainer.data.dataset.follow import MARKER
from trainer.data.dataset.scan import build_manifest
from trainer.data.reading.reader import Reader
from trainer.run import following
from trainer.run.following import Following
from trainer.run.manifests import read_manifest
from trainer.run.run_directory import RunDirectory


class Waiting:
    """A reader that has read partition 1, and what `wait` says."""

    def __init__(self, tmp_path: Path, **changes) -> None:
        self.root, self.run, self.said = tmp_path / "data", RunDirectory(tmp_path / "run"), []
        self.run.path.mkdir()
        add(self.root, 1)
        manifest = build_manifest(str(self.root), "train")
        data = data_config(**{"root": str(self.root), "follow": True, "follow_every_s": 0.1} | changes)
        training = TrainingConfig(run_dir=str(self.run))
        config = Config(data=data, features=rows.FEATURES, tables=rows.TABLES, tasks=rows.TASKS, training=training)
        self.reader: Reader = rows.reader(manifest, data)
        self.following = Following(self.run, config, self.said.append)

    def wait(self, stops=lambda: False) -> str:
        return self.following.wait(self.reader, stops)


def test_new_partitions_reach_the_reader_and_the_run_directory(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)
    threading.Timer(0.5, add, (waiting.root, 2)).start()
    assert waiting.wait() == "more"
    assert waiting.reader.manifest.rows == 2 * ROWS
    assert read_manifest(waiting.run, "train") == waiting.reader.manifest
    assert waiting.said == ["waiting for partitions after day=1", f"new: day=2: 1 file, {ROWS} rows"]


def test_patience_ends(tmp_path: Path) -> None:
    started = time.monotonic()
    assert Waiting(tmp_path, follow_patience_s=0.6).wait() == "end"
    assert 0.6 <= time.monotonic() - started < 30


def test_a_stop_is_heard_between_two_looks(tmp_path: Path) -> None:
    waiting, stop = Waiting(tmp_path, follow_every_s=1000), threading.Event()
    threading.Timer(0.5, stop.set).start()
    started = time.monotonic()
    assert waiting.wait(stop.is_set) == "stopped"
    assert time.monotonic() - started < 60


def test_late_files_are_named_once(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, follow_patience_s=0.5)
    add(waiting.root, 0)
    assert waiting.wait() == waiting.wait() == "end"
    assert [line for line in waiting.said if "late" in line] == [
        "too late to be trained, their partitions or later ones are already: day=0/a.parquet"
    ]


def test_an_outage_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, looks, extend = Waiting(tmp_path), [], following.extend

    def fails_twice(*arguments):
        looks.append(arguments)
        if len(looks) < 3:
            raise StorageUnavailable("the bucket does not answer\nWait.")
        return extend(*arguments)

    monkeypatch.setattr(following, "extend", fails_twice)
    add(waiting.root, 2)
    assert waiting.wait() == "more"
    assert waiting.said.count("the bucket does not answer; looking again in 0.1 s") == 2


@pytest.mark.parametrize("harm", ["column", "damage", "label"])
def test_new_files_that_do_not_fit_are_refused(tmp_path: Path, harm: str) -> None:
    waiting = Waiting(tmp_path)
    before = waiting.reader.manifest
    add(waiting.root, 2, complete=False)
    path = waiting.root / "train" / "day=2" / "a.parquet"
    table = rows.table(0, 10)
    if harm == "damage":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        table = table.drop_columns("number") if harm == "column" else table.set_column(5, "odd", table["row"])
        rows.pq.write_table(table, path)
    (path.parent / MARKER).touch()
    with pytest.raises(UserError, match=r"day=2/a\.parquet"):
        waiting.wait()
    assert waiting.reader.manifest is before
    assert read_manifest(waiting.run, "train") is None
