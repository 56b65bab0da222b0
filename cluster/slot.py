"""A place on this host for one rank: whoever holds it has a standby process there, new or left by an agent that died.

The folder of a launch has a lock, a socket, a board and a log for each place. The lock ends with the agent's process,
so that the next agent knows that the place is free.
"""

import fcntl
import os
import select
import shutil
import signal
import socket
import struct
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
_OLD_S = 7 * 86400.0
_STARTS_S = 30.0  # until a standby listens, which it does before it imports anything


class StandbyError(Exception):
    """A standby process could not be started, or has ended."""


class Slot:
    """The place of one agent.

    Attributes:
        board: shared with the process that calls the function; each has its own.
    """

    def __init__(self, launch: str, host: str, local_rank: int, modules: Sequence[str]) -> None:
        """Takes the place of `local_rank`, or a further one where that stays taken.

        launch: names the launch, the same on all hosts and after every restart.
        host: this one, since hosts may share a folder for temporary files.
        """
        self._modules = modules
        self._control: Connection | None = None
        folder = _folder(f"{launch}-{host.replace(':', '.')}")
        self._lock, self._base = _take(folder, local_rank)
        self.stacks = self._path("stacks")

    def release(self) -> None:
        """Gives the place up; its standby waits there for the next agent."""
        if self._control is not None:
            self._control.close()
        os.close(self._lock)

    def _path(self, kind: str) -> Path:
        return self._base.with_suffix(f".{kind}")

    @property
    def path(self) -> Path:
        """Of the socket at which the standby listens, while it lives."""
        return self._path("socket")

    @property
    def ready(self) -> Path:
        """There once the standby has imported everything."""
        return self._path("ready")

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
        line = _connected(self.path)
        try:
            if line is not None:
                line.send(order)
                return line, self._control
        except OSError:
            pass  # it ended just then
        self.drop(self._control)
        raise StandbyError(self.last_words())

    def renew(self) -> None:
        """The standby carries out the order itself: another one begins to import, for the next order."""
        self._control = None
        self.prepare()

    def drop(self, control: Connection) -> None:
        """Ends the standby at the other end, however it is, and what it forked; the next order starts another."""
        _kill(control)
        control.close()
        if control is self._control:
            self._control = None
            self.path.unlink(missing_ok=True)

    def leave(self) -> None:
        """All is done: the standby ends, and what lies at this place goes."""
        if self._control is not None:
            tell(self._control, "leave")
        for kind in ("socket", "ready", "log", "board", "stacks", "lock"):
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

    def _connect_to_old(self) -> bool:
        self._control = _connected(self.path)
        return self._control is not None

    def _start(self) -> bool:
        path = self.path
        path.unlink(missing_ok=True)
        self.ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "cluster.standby", str(path), *self._modules]
        lives, alive = os.pipe()  # what it inherits is open while it lives
        with self.log.open("wb") as log:
            # A session of its own: what ends an agent's process group must leave it to the next agent.
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[alive], start_new_session=True
            )
        os.close(alive)
        end = time.monotonic() + _STARTS_S
        while (control := _connected(path)) is None and time.monotonic() < end:
            if select.select([lives], [], [], 0.01)[0]:
                break  # it has ended
        os.close(lives)
        if control is None:
            raise StandbyError(self.last_words())
        self._control = control
        return True


def warm(launch: str, host: str, local_rank: int, modules: Sequence[str], timeout_s: float) -> None:
    """Has a standby at a place before an agent comes; returns when it has imported everything, or has failed to."""
    slot = Slot(launch, host, local_rank, modules)
    slot.prepare()
    end = time.monotonic() + timeout_s
    while not slot.ready.exists() and time.monotonic() < end and slot.path.exists():
        time.sleep(0.1)
    slot.release()


def tell(control: Connection, word: str) -> None:
    """Tells a standby to "kill" what it forked, or to "leave" itself. One that has ended is not missed."""
    try:
        control.send(word)
    except OSError:
        return


def _kill(control: Connection) -> None:
    """Kills the process that listens at the other end, which may be stopped; what it forked ends with it."""
    line = socket.socket(fileno=os.dup(control.fileno()))
    process, *_ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    line.close()
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def _connected(path: Path) -> Connection | None:
    """A connection to what listens there; None where nothing does."""
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(str(path))
    except OSError:
        line.close()
        return None
    return Connection(line.detach())


def _folder(name: str) -> Path:
    """Of a launch on this host, which nobody else may open: its processes carry out what comes through its sockets."""
    ours = f"multigate-{os.getuid()}"
    top = Path(tempfile.gettempdir()) / ours
    if len(str(top / name / "1999.socket").encode()) > _LONGEST_SOCKET:
        top = Path("/tmp") / ours
    top.mkdir(mode=0o700, exist_ok=True)
    there = top.lstat()
    if there.st_uid != os.getuid() or there.st_mode & 0o077:
        raise StandbyError(f"{top} belongs to somebody else, or others may open it: remove it, or set TMPDIR")
    _remove_old(top)
    folder = top / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _remove_old(top: Path) -> None:
    """Folders of launches that were killed with all their hosts' processes."""
    for folder in top.iterdir():
        try:
            is_old = time.time() - folder.stat().st_mtime > _OLD_S
        except OSError:
            continue  # its own launch removes it
        if is_old and not any(map(_is_held, folder.glob("*.lock"))):
            shutil.rmtree(folder, ignore_errors=True)


def _is_held(path: Path) -> bool:
    if (lock := _locked(path)) is None:
        return True
    os.close(lock)
    return False


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
