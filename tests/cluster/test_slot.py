"""Places of agents on a host, with real standby processes; they import nothing large here."""

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.slot import Slot, StandbyError, warm

HOST = "192.0.2.1"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def process_of(slot: Slot) -> int:
    """Of the standby there."""
    slot.prepare()
    assert slot._control is not None
    with socket.socket(fileno=os.dup(slot._control.fileno())) as line:
        return struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_next_agent_finds_the_standby_of_one_that_has_gone() -> None:
    first = Slot("run", HOST, 0, ["json"])
    process = process_of(first)
    until(first.ready.exists)
    first.release()
    second = Slot("run", HOST, 0, ["json"])
    assert process_of(second) == process
    second.leave()
    until(lambda: is_gone(process))
    assert not second.ready.parent.exists()


def test_a_place_that_stays_taken_is_not_waited_for_for_ever() -> None:
    first, second = Slot("run", HOST, 0, []), Slot("run", HOST, 0, [])
    assert process_of(first) != process_of(second)
    first.leave()
    second.leave()


def test_a_standby_that_is_stopped_is_replaced() -> None:
    slot = Slot("run", HOST, 0, [])
    process = process_of(slot)
    os.kill(process, signal.SIGSTOP)
    assert slot._control is not None
    slot.drop(slot._control)
    until(lambda: is_gone(process))
    assert process_of(slot) != process
    slot.leave()


def test_a_host_that_is_prepared_has_everything_imported_before_an_agent_comes() -> None:
    warm("run", HOST, 0, ["json"], 20)
    slot = Slot("run", HOST, 0, ["json"])
    assert slot.ready.exists()
    process_of(slot)
    slot.leave()


def test_what_cannot_be_imported_is_told() -> None:
    slot = Slot("run", HOST, 0, ["no.such.module"])
    with pytest.raises(StandbyError, match=r"ModuleNotFoundError: No module named 'no'"):
        order_twice(slot)
    slot.leave()


def order_twice(slot: Slot) -> None:
    """The first order may come before the standby has failed."""
    slot.order("order")
    until(lambda: "ModuleNotFoundError" in slot.log.read_text())
    slot.order("order")


def test_the_processes_of_an_agent_outlive_it() -> None:
    code = (
        "import tempfile, sys, time; tempfile.tempdir = sys.argv[1]\n"
        "from cluster.slot import Slot\n"
        f"slot = Slot('run', '{HOST}', 0, []); slot.prepare(); print('there', flush=True); time.sleep(60)"
    )
    root = Path(__file__).resolve().parents[2]
    agent = subprocess.Popen(
        [sys.executable, "-c", code, tempfile.gettempdir()], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert agent.stdout is not None
    assert agent.stdout.readline() == "there\n"
    agent.kill()
    agent.wait()
    slot = Slot("run", HOST, 0, [])
    assert slot._connect_to_old(), "it is still there"
    slot.leave()


def test_what_killed_launches_left_goes_after_a_while(tmp_path: Path) -> None:
    top = tmp_path / f"multigate-{os.getuid()}"
    kept, slot = Slot("kept", HOST, 0, []), Slot("old", HOST, 0, [])
    slot.release()
    for folder in top.iterdir():
        os.utime(folder, (1, 1))
    Slot("new", HOST, 0, []).leave()
    assert [folder.name for folder in top.iterdir()] == [f"kept-{HOST}"]
    kept.leave()


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_folder_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / f"multigate-{os.getuid()}"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(StandbyError, match="others may open it"):
        Slot("run", HOST, 0, [])
