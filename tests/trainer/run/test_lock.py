"""Who holds a folder: one job at a time, and none that is gone."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from configs.errors import UserError
from tests.fork_server import fork_server
from trainer.run.lock import LOCK, locked

BEAT_S = 0.05
FORKSERVER = fork_server()


def hold(folder: Path, ready: Connection) -> None:
    with locked(folder, "", beat_s=BEAT_S):
        ready.send(os.getpid())
        signal.pause()


@contextmanager
def holder(folder: Path) -> Iterator[int]:
    """The id of another process that holds the folder."""
    here, there = multiprocessing.Pipe()
    job = FORKSERVER.Process(target=hold, args=(folder, there), daemon=True)
    job.start()
    try:
        yield here.recv()
    finally:
        job.kill()
        job.join()


def test_a_second_job_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(UserError) as refused, locked(tmp_path, "wait for it"):
            pass
        assert f"{tmp_path} is in use by process {process} on " in str(refused.value)
        assert str(refused.value).splitlines()[1:] == ["wait for it"]
    with locked(tmp_path, ""):
        pass


def test_a_job_that_gives_signs_of_life_keeps_its_place(tmp_path: Path) -> None:
    said: list[str] = []
    with holder(tmp_path) as process, pytest.raises(UserError), locked(tmp_path, "", takes_over=True, say=said.append):
        pass
    assert len(said) == 1
    assert f"in use by process {process} on " in said[0]


def test_the_place_of_a_silent_job_is_taken_by_one_that_may(tmp_path: Path) -> None:
    """As where a host is lost, whose lock the file server keeps."""
    with holder(tmp_path) as process:
        os.kill(process, signal.SIGSTOP)
        with pytest.raises(UserError), locked(tmp_path, ""):
            pass
        with locked(tmp_path, "", takes_over=True, silent_s=1, beat_s=BEAT_S):
            os.kill(process, signal.SIGCONT)
            time.sleep(4 * BEAT_S)  # it goes on writing, into a file that is no longer there
            assert f"process {os.getpid()} on " in (tmp_path / LOCK).read_text()
            with pytest.raises(UserError, match=f"in use by process {os.getpid()} on "), locked(tmp_path, ""):
                pass
    with locked(tmp_path, ""):
        pass


def test_one_that_lets_go_is_followed_at_once(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        os.kill(process, signal.SIGSTOP)
        began = time.monotonic()
        with locked(tmp_path, "", takes_over=True, silent_s=60, say=lambda line: os.kill(process, signal.SIGKILL)):
            assert time.monotonic() - began < 30
