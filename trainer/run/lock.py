"""Keeps a second job out of a folder while the first one lives.

The lock is the kernel's (over NFS too): nothing is left of it after a SIGKILL. But where a whole host is lost, a file
server keeps its lock for a while (NFS 4: about 90 s), or for ever (NFS 3, until that host is back). So the holder also
writes a number that grows every few seconds, and a job that is to repeat a lost one may take over from a holder that
is silent for long. One that was asleep and comes back finds a newer attempt of the run, and stands down
(`trainer.checkpoint.attempts`). Imports no torch.
"""

import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from configs.errors import UserError

LOCK = ".lock"
_BEAT_S, _SILENT_S = 5.0, 60.0
_TICK_S = 0.5


@contextmanager
def locked(
    folder: Path,
    remedy: str,
    *,
    takes_over: bool = False,
    say: Callable[[str], None] = lambda line: None,
    beat_s: float = _BEAT_S,
    silent_s: float = _SILENT_S,
) -> Iterator[None]:
    """Holds the lock of `folder`, which is there.

    Args:
        remedy: what to do when another process holds it.
        takes_over: whether to wait, and take the lock of a holder that gives no sign of life for `silent_s`.

    Raises:
        UserError: another process holds it; says where.
    """
    path = folder / LOCK
    descriptor = _taken(path)
    if descriptor is None and takes_over:
        descriptor = _taken_over(path, say, silent_s)
    if descriptor is None:
        raise UserError(f"{folder} is in use by {_holder(_content(path))}\n{remedy}")
    ends = threading.Event()
    _give_sign(descriptor, 0)
    beats = threading.Thread(target=_beat, args=(descriptor, ends, beat_s), name="lock", daemon=True)
    beats.start()
    try:
        yield
    finally:
        ends.set()
        beats.join()
        os.close(descriptor)


def _taken(path: Path) -> int | None:
    """The lock file, open and locked; None where another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with suppress_missing_locks():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_same(descriptor, path):  # not one that was replaced meanwhile
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _taken_over(path: Path, say: Callable[[str], None], silent_s: float) -> int | None:
    """The lock, when its holder lets go of it or is silent; None when it gives a sign of life."""
    held = _content(path)
    if "beat" not in held:  # a version that gives none
        return None
    say(f"{path.parent} is in use by {_holder(held)}; taking over if it gives no sign of life for {silent_s:.0f} s")
    until = time.monotonic() + silent_s
    while time.monotonic() < until:
        time.sleep(_TICK_S)
        if (descriptor := _taken(path)) is not None:
            return descriptor
        if _content(path) != held:
            return None
    draft = path.with_name(f"{LOCK}.{socket.gethostname()}.{os.getpid()}.tmp")
    descriptor = _taken(draft)
    assert descriptor is not None, "nobody else has a file of this name"
    draft.replace(path)
    return descriptor


def _beat(descriptor: int, ends: threading.Event, beat_s: float) -> None:
    for number in count(1):
        if ends.wait(beat_s):
            return
        _give_sign(descriptor, number)


def _give_sign(descriptor: int, number: int) -> None:
    text = f"process {os.getpid()} on {socket.gethostname()}\nbeat {number}\n".encode()
    with suppress(OSError):  # no space, a file server that is away: whoever waits sees silence
        os.ftruncate(descriptor, os.pwrite(descriptor, text, 0))
        os.fsync(descriptor)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _holder(content: str) -> str:
    return content.partition("\n")[0] or "another process"


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


@contextmanager
def suppress_missing_locks() -> Iterator[None]:
    """Goes on without a lock on a file system that has none."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
