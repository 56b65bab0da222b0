"""A run from an object store that goes down for longer than a reader waits: the workers start again and finish."""

import subprocess
import threading
import time
from pathlib import Path

import pyarrow.fs as fs
import pytest

from tests.trainer.commands.test_commands import ROOT, command
from tests.trainer.data.object_store import BUCKET, object_store
from tests.trainer.test_train import QUICKSTART, assert_same_bits, final_state, small
from tests.trainer.workers import losses, train_on
from trainer.data.generators._generate import generate

OPTIONS = ("data.prefetch_mib=1", "data.shuffle_window=128", "checkpoint.every_steps=5")


@pytest.mark.slow
def test_the_run_outlives_the_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    local, run_dir = tmp_path / "data", tmp_path / "run"
    undisturbed = small(str(local), tmp_path / "undisturbed", *OPTIONS, "training.epochs=1")
    assert undisturbed.data.generate is not None
    generate(undisturbed.data.generate, str(local))
    train_on(undisturbed, 2)
    settings = ["data.global_batch_size=512", "tables.author.sharding=row_wise", "model.dropout=0.1", *OPTIONS]
    settings += [
        "training.log_every=1",
        "training.epochs=1",
        "training.deterministic=true",
        "data.read_timeout_s=3",
        f"training.run_dir={run_dir}",
    ]
    with object_store() as store:
        fs.copy_files(str(local), f"{BUCKET}/data", destination_filesystem=store.file_system())
        store.latency_s = 0.05  # so that there is something left to read when it goes down
        arguments = command("train", QUICKSTART, *settings, f"data.root={store.url('/data')}", "data.generate=null")
        with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as job:
            while not (run_dir / "metrics.jsonl").exists() or max(losses(run_dir), default=0) < 3:
                assert job.poll() is None, job.communicate()[1]
                time.sleep(0.02)
            store.is_down = True
            threading.Timer(12, setattr, (store, "is_down", False)).start()
            screen = job.communicate(timeout=280)[1]
    assert job.returncode == 0, screen
    assert "The storage does not answer" in screen
    assert "attempt 2" in screen
    assert losses(run_dir) == losses(tmp_path / "undisturbed")
    assert_same_bits(final_state(run_dir), final_state(tmp_path / "undisturbed"))
