"""One fault of a run that is watched: from the fault to the next new step, and where the seconds went."""

import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.recovery.watch import Watch

PARTS = ("found", "ray", "process", "plan", "load", "first", "repeat")
"""In order; without gaps, so that their sum is the whole."""
_LOOK_S = 0.02


class Recovery(NamedTuple):
    """Seconds."""

    again: float
    """From the fault until a step was trained that none had trained before."""
    still: float
    """Between that step and the last new one before."""
    parts: dict[str, float]
    said: list[str]
    """By the driver, before the new attempt began."""


def recovery(
    watch: Watch, fault: Callable[[], float], started: Callable[[int], list[float]], limit_s: float
) -> Recovery | None:
    """None if no new step was trained within the limit.

    Args:
        fault: makes it, and returns when it was there.
        started: number of an attempt -> when the processes of its ranks were started.
    """
    attempts, said = len(watch.attempts), len(watch.said)
    at = fault()
    if not _wait(lambda: len(watch.attempts) > attempts, at + limit_s):
        return None
    known = len(watch.steps)  # of the attempts before: the new one has done none yet
    if not _wait(lambda: len(watch.steps) > known, at + limit_s):
        return None
    again, attempt = watch.steps[known][1], len(watch.attempts)
    began = watch.attempts[attempt - 1]
    lines = [
        (said_at, line) for said_at, line in watch.said[said:] if not line.startswith("attempt ") and said_at < began
    ]
    marks = [said_at for said_at, _ in lines][:1] or [at]
    built, loaded = watch.opened(attempt)
    marks += [max(started(attempt)), began, built, loaded, watch.first_step_after(loaded), again]
    parts = dict(zip(PARTS, _lengths(at, marks), strict=True))
    return Recovery(again - at, again - watch.steps[known - 1][1], parts, [line for _, line in lines])


def _lengths(start: float, marks: list[float]) -> list[float]:
    """Of the pieces between marks; one that lies before the mark before it ends an empty piece."""
    lengths = []
    for mark in marks:
        lengths.append(max(mark - start, 0.0))
        start = max(mark, start)
    return lengths


def trains_on(watch: Watch, seconds: float, limit_s: float) -> bool:
    """Waits until new steps have been trained for so long; False if that takes too long."""
    known, end = len(watch.steps), time.time() + limit_s
    return _wait(lambda: len(watch.steps) > known and watch.steps[-1][1] - watch.steps[known][1] > seconds, end)


def _wait(is_so: Callable[[], bool], end: float) -> bool:
    while not is_so():
        if time.time() > end:
            return False
        time.sleep(_LOOK_S)
    return True
