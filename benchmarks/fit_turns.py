"""Several runs of the trainer in this process, which train in turns: what is done to one is seen beside the other.

Each is `trainer.train.fit` itself, in a thread of its own that rests before a step while it is another's turn. A busy
machine slows all alike.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from trainer.session import Session
from trainer.train import fit


class Turn(NamedTuple):
    """steps and seconds, without the first steps."""

    steps: int
    seconds: float


class Runs:
    """Of some sessions, by name; `train` is the main thread's.

    Attributes:
        begun: when each step of each run began, by a clock that stands while the run rests: [i] is step i's.
    """

    def __init__(self, sessions: dict[str, Session], warm_up: int = 10) -> None:
        self.begun: dict[str, list[float]] = {name: [] for name in sessions}
        self._rested: dict[str, float] = dict.fromkeys(sessions, 0.0)
        self._warm_up = warm_up
        self._turn: tuple[str, float] | None = None  # whose it is, and how long it takes
        self._done: Turn | None = None
        self._changed = threading.Condition()
        self._first = 0
        for name, session in sessions.items():
            session.profiler.tick = lambda step, name=name: self._before_step(name)
            threading.Thread(target=fit, args=(session,), name=name, daemon=True).start()

    def clock(self, name: str) -> float:
        """Seconds, while it is the run's turn."""
        return time.perf_counter() - self._rested[name]

    def train(self, name: str, seconds: float) -> Turn:
        """Some steps of a run."""
        with self._changed:
            self._turn, self._done = (name, seconds), None
            self._first = len(self.begun[name]) + self._warm_up
            self._changed.notify_all()
            while self._done is None:
                assert self._changed.wait(120), f"{name} makes no steps"
            return self._done

    def _before_step(self, name: str) -> None:
        with self._changed:
            if self._is_over(name):
                self._turn = None
                self._changed.notify_all()
            with self._resting(name):
                while self._turn is None or self._turn[0] != name:
                    self._changed.wait()
            self.begun[name].append(self.clock(name))

    @contextmanager
    def _resting(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._rested[name] += time.perf_counter() - began

    def _is_over(self, name: str) -> bool:
        if self._turn is None or self._turn[0] != name or len(self.begun[name]) <= self._first:
            return False
        seconds = self.clock(name) - self.begun[name][self._first]
        if seconds < self._turn[1]:
            return False
        self._done = Turn(len(self.begun[name]) - self._first, seconds)
        return True
