"""A place on this host for one rank: whoever holds it has a standby process there, new or left by an agent that died.

The folder of a launch has a lock, a socket, a board and a log for each place. The lock ends with the agent's process,
so that the next agent knows that the place is free.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from cluster.board import Board

_LONGEST_SOCKET = 107  # bytes of a Unix socket's path
_FREED_S = 3.0  # how long the process of an agent that was killed takes to be gone
_STARTS_S = 30.0  # until a standby listens, which it does before it imports anything


class StandbyError(Exception):
    """A standby process could not be started, or has ended."""


class Slot:
    """The place of one agent.

    Attributes:
        board: shared with the process that calls the function; each has its own.
    """

    def __init__(self, launch: str, local_rank: int, modules: Sequence[str]) -> None:
        """Takes the place of `local_rank`, or a further one where that stays taken.

        launch: names the launch, the same on all hosts and after every restart.
        """
        self._modules = modules
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None
        folder = _folder(launch)
        self._lock, self._base = _take(folder, local_rank)
        self.stacks = self._path("stacks")

    def _path(self, kind: str) -> Path:
        return self._base.with_suffix(f".{kind}")

    @property
    def log(self) -> Path:
        """What its processes print before the function sends that elsewhere."""
        return self._path("log")

    def prepare(self) -> None:
        """Has a standby there: the one that is there already, or a new one, which begins to import."""
        if self._control is not None:
            return
        for connect in (self._connect_to_old, self._start):
            if connect():
                return

    def order(self, order: object) -> tuple[Connection, Connection]:
        """Gives an order; connections to the process that carries it out, and to the standby, which tells its end."""
        self.prepare()
        assert self._control is not None
        line = _connected(self._path("socket"))
        if line is None:
            self.drop()
            raise StandbyError(self.last_words())
        line.send(order)
        return line, self._control

    def kill(self) -> None:
        """Has the process ended that carries out an order; the standby tells its end."""
        self._say("kill")

    def drop(self) -> None:
        """Ends the standby too, however it is; the next `prepare` starts another."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._path("socket").unlink(missing_ok=True)

    def leave(self) -> None:
        """All is done: the standby ends, and what lies at this place goes."""
        self._say("leave")
        if self._process is not None:
            self._process.wait()
        for kind in ("socket", "log", "board", "stacks", "lock"):
            self._path(kind).unlink(missing_ok=True)
        os.close(self._lock)
        try:
            self._base.parent.rmdir()
        except OSError:
            return  # others are there

    def new_board(self) -> tuple[Path, Board]:
        path = self._path("board")
        return path, Board.new(path)

    def last_words(self) -> str:
        """The last line that its processes printed."""
        try:
            lines = self.log.read_text(errors="replace").split("\n")
        except OSError:
            lines = []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def _say(self, word: str) -> None:
        if self._control is None:
            return
        try:
            self._control.send(word)
        except OSError:
            self.drop()

    def _connect_to_old(self) -> bool:
        self._control = _connected(self._path("socket"))
        return self._control is not None

    def _start(self) -> bool:
        path = self._path("socket")
        path.unlink(missing_ok=True)
        command = [sys.executable, "-m", "cluster.standby", str(path), *self._modules]
        with self.log.open("wb") as log:
            # A session of its own: what ends an agent's process group must leave it to the next agent.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + _STARTS_S
        while (control := _connected(path)) is None:
            if self._process.poll() is not None or time.monotonic() > end:
                self.drop()
                raise StandbyError(self.last_words())
            time.sleep(0.01)
        self._control = control
        return True


def _connected(path: Path) -> Connection | None:
    """A connection to what listens there; None where nothing does."""
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(str(path))
    except OSError:
        line.close()
        return None
    return Connection(line.detach())


def _folder(launch: str) -> Path:
    """Of a launch on this host, which nobody else may open: its processes carry out what comes through its sockets."""
    ours = f"multigate-{os.getuid()}"
    top = Path(tempfile.gettempdir()) / ours
    if len(str(top / launch / "999.socket").encode()) > _LONGEST_SOCKET:
        top = Path("/tmp") / ours
    top.mkdir(mode=0o700, exist_ok=True)
    there = top.lstat()
    if there.st_uid != os.getuid() or there.st_mode & 0o077:
        raise StandbyError(f"{top} belongs to somebody else, or others may open it: remove it, or set TMPDIR")
    _remove_old(top)
    folder = top / launch
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _remove_old(top: Path) -> None:
    """Folders of launches that were killed with all their hosts' processes."""
    for folder in top.iterdir():
        try:
            newest = max(path.stat().st_mtime for path in [folder, *folder.iterdir()])
            if time.time() - newest > 7 * 86400 and not any(map(_connected, folder.glob("*.socket"))):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # its own launch removes it


def _take(folder: Path, local_rank: int) -> tuple[int, Path]:
    """A descriptor that holds a place, and the place's name."""
    end = time.monotonic() + _FREED_S
    while time.monotonic() < end:
        if (lock := _locked(folder / f"{local_rank}.lock")) is not None:
            return lock, folder / str(local_rank)
        time.sleep(0.05)
    for number in range(1000, 2000):  # the agent that has it is stopped, perhaps; it must not be waited for
        if (lock := _locked(folder / f"{number}.lock")) is not None:
            return lock, folder / str(number)
    raise StandbyError(f"{folder} has no free place")


def _locked(path: Path) -> int | None:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock
