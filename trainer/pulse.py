"""Tells the launcher that this rank goes on: after each step, and amid what takes long and is no hang.

A rank that waits for others in a collective does not tell; one of the others does. What is made of silence is the
launcher's business.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

_EVERY_S = 1.0
_LEAST_CPU_S, _LEAST_BYTES = 0.005, 4096  # within _EVERY_S; a process that hangs has a tenth of the first at most
_IO = Path("/proc/self/io")


class Pulse:
    """Of one rank."""

    def __init__(self, beat: Callable[[int], None] = lambda step: None, step: int = 0) -> None:
        """beat: told the steps done; see `Worker.beat`. step: how many they are now."""
        self._beat, self._step = beat, step

    def at(self, step: int) -> None:
        """`step` steps are done."""
        self._step = step
        self._beat(step)

    def __call__(self) -> None:
        """The rank goes on with what is no step."""
        self._beat(self._step)

    def during(self) -> AbstractContextManager[None]:
        """Beats by itself: for what waits for a disk, a network or another process, and has an end of its own."""
        return self._beside(lambda: True)

    def working(self) -> AbstractContextManager[None]:
        """Beats while this process computes, or reads or writes: for what takes long and never waits for long.

        A read that never comes back, of a file server that is gone, is a hang then.
        """
        before = _done()

        def has_worked() -> bool:
            nonlocal before
            last, before = before, _done()
            return before[0] - last[0] >= _LEAST_CPU_S or before[1] - last[1] >= _LEAST_BYTES

        return self._beside(has_worked)

    @contextmanager
    def _beside(self, goes_on: Callable[[], bool]) -> Iterator[None]:
        ends = threading.Event()

        def beat() -> None:
            self()
            while not ends.wait(_EVERY_S):
                if goes_on():
                    self()

        thread = threading.Thread(target=beat, name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()


def _done() -> tuple[float, int]:
    """Seconds of computing and bytes read or written, of all threads of this process since its start."""
    try:
        words = _IO.read_text().split()
    except OSError:  # some containers hide it
        return time.process_time(), 0
    return time.process_time(), int(words[1]) + int(words[3])
