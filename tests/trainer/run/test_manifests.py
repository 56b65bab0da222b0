"""Manifests of a run's parts: kept by several processes at once, an evaluation beside a run."""

from pathlib import Path

import pyarrow as pa

from tests.fork_server import fork_server
from trainer.data.dataset.manifest import DataFile, Manifest
from trainer.run.manifests import keep_manifest, read_manifest
from trainer.run.run_directory import RunDirectory

FORKSERVER = fork_server("trainer.run.manifests")
PARTS = [f"part{number}" for number in range(6)]


def manifest(part: str) -> Manifest:
    return Manifest(f"/data/{part}", (DataFile("a.parquet", 9, "0f", (4,), 99, 0),), (pa.schema([("x", pa.int64())]),))


def _keep(folder: str, part: str) -> None:
    for number in range(10):
        keep_manifest(RunDirectory(folder), f"{part}-{number}", manifest(part))


def test_none_is_lost_when_processes_keep_theirs_at_once(tmp_path: Path) -> None:
    processes = [FORKSERVER.Process(target=_keep, args=(str(tmp_path), part)) for part in PARTS]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * len(PARTS)
    for part in PARTS:
        for number in range(10):
            assert read_manifest(RunDirectory(tmp_path), f"{part}-{number}") == manifest(part)
