"""Whoever trains tells that it goes on: at every step, and amid what takes long."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.worker import Worker
from configs.schema import Config
from tests.trainer.test_train import small
from tests.trainer.workers import call_on
from trainer.data.reading.prefetch import Prefetcher
from trainer.prepare import prepare_run
from trainer.pulse import Pulse


def test_it_beats_by_itself_while_something_else_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.pulse._EVERY_S", 0.01)
    beats: list[int] = []
    pulse = Pulse(beats.append, step=7)
    with pulse.during():
        until = time.monotonic() + 30
        while len(beats) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    count = len(beats)
    assert set(beats) == {7}
    assert count >= 3
    time.sleep(0.05)
    assert len(beats) == count
    pulse.at(8)
    pulse()
    assert beats[count:] == [8, 8]


WORKS_AND_HANGS = """
import os, sys, threading, time
from trainer import pulse

pulse._EVERY_S = 0.2
beats = []
pipe, file = sys.argv[1:]
os.mkfifo(pipe)

def lasts(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield

with pulse.Pulse(beats.append).working():
    for _ in lasts(2):
        pass
    print(len(beats) > 3)
    read = threading.Thread(target=lambda: open(pipe).read())
    read.start()
    time.sleep(1)
    count = len(beats)
    time.sleep(2)
    print(len(beats) == count)
    open(pipe, "w").close()
    read.join()
    with open(file, "wb", buffering=0) as written:
        for _ in lasts(2):
            written.write(bytes(1 << 14))
            time.sleep(0.02)
    print(len(beats) > count)
"""


def test_work_beats_and_a_read_that_never_comes_back_does_not(tmp_path: Path) -> None:
    """In a process of its own, where no other thread works. What is written little by little hardly computes."""
    command = [sys.executable, "-c", WORKS_AND_HANGS, tmp_path / "pipe", tmp_path / "file"]
    assert subprocess.check_output(command, text=True, timeout=60).split() == ["True"] * 3


def test_a_reader_that_waits_for_its_storage_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.data.reading.prefetch._TICK_S", 0.02)
    beats: list[None] = []

    def nothing_comes(number: int, again: object) -> None:
        while len(beats) < 3:
            time.sleep(0.01)
        raise OSError("it came back")

    chunk = type("Chunk", (), {"row_groups": (0,)})()
    prefetcher = Prefetcher(
        iter([chunk]),
        nothing_comes,
        lambda *_: None,
        lambda *_: None,
        lambda _: 1,
        1,
        1,
        60,
        lambda: beats.append(None),
    )  # pyright: ignore[reportArgumentType]
    with pytest.raises(OSError, match="it came back"):
        next(prefetcher)


def note_beats(config: Config, worker: Worker) -> None:
    from trainer.train import train

    beats: list[int] = []
    train(config, replace(worker, beat=beats.append))
    (Path(config.training.run_dir) / f"beats_{worker.rank}").write_text(json.dumps(beats))


def test_every_rank_tells_of_every_step_and_of_every_batch_of_an_evaluation(tmp_path: Path) -> None:
    config = small(str(tmp_path / "data"), tmp_path / "run", "training.max_steps=4", "training.evaluate_every=2")
    prepare_run(config, resume=False, overwrite=False, say=lambda line: None)
    call_on(note_beats, config, 2)
    for rank in range(2):
        beats = json.loads((tmp_path / "run" / f"beats_{rank}").read_text())
        assert sorted(beats) == beats
        counts = {step: beats.count(step) for step in range(1, 5)}
        batches = 4  # 2,000 rows in batches of 512
        assert counts[1] == counts[3] == 1
        assert min(counts[2], counts[4]) >= 1 + batches
