"""Which rank the others wait for, found without asking any of them during a step.

A rank's own part of a step is the time in which its thread ran or was ready to run, and in which it waited for data:
all but its sleep until other ranks had come as far. Log lines gather it with what they gather anyway. On GPUs, whose
host spins while it waits, it is not measured.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median_low

_SCHEDULER = Path("/proc/thread-self/schedstat")  # nanoseconds on a core, nanoseconds ready and without one, ...
_TOLD = 1.3  # a ratio beyond which the end of a run names the rank; about 1.1 where all is well


def awake_seconds() -> float:
    """Of this thread since it began: on a core, or ready and without one; the former alone where Linux does not say."""
    try:
        on_core, ready, *_ = _SCHEDULER.read_text().split()
        return (int(on_core) + int(ready)) / 1e9
    except (OSError, ValueError):
        return time.thread_time()


def ratio(own: Sequence[float]) -> float:
    """The slowest rank's own part over that of the median rank; 1.0 where nothing was measured."""
    middle = median_low(own)
    return max(own) / middle if middle > 0 else 1.0


class SlowRank:
    """Over a whole attempt."""

    def __init__(self) -> None:
        self._sums: list[float] = []

    def add(self, own: Sequence[float]) -> None:
        """Seconds of each rank since the last time."""
        self._sums = [sum(pair) for pair in zip(self._sums or [0.0] * len(own), own, strict=True)]

    def line(self, hosts: Sequence[str]) -> str | None:
        """Names the rank, if there is one that the others wait for. hosts: by rank."""
        if len(self._sums) < 2 or (found := ratio(self._sums)) <= _TOLD:
            return None
        rank = self._sums.index(max(self._sums))
        return (
            f"rank {rank} on {hosts[rank]} is slow: its own part of a step takes {found:.1f} times that of the median "
            "rank, and the others wait (speed/slowest_rank); its host is busy, or plan.txt gives it more work"
        )
