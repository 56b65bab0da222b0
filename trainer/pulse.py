"""Tells the launcher that this rank goes on: after each step, and amid what takes long and is no hang.

A rank that waits for others in a collective does not tell; one of the others does. What is made of silence is the
launcher's business.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY_S = 1.0


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

    @contextmanager
    def during(self) -> Iterator[None]:
        """Beats by itself: for what waits for a disk, a network or another process, and has an end of its own."""
        ends = threading.Event()

        def beat() -> None:
            self()
            while not ends.wait(_EVERY_S):
                self()

        thread = threading.Thread(target=beat, name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()
