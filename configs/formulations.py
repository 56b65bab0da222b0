"""Several ways to compute one thing, equal to rounding, of which the fastest depends on processor and shape.

Whoever knows several asks `fastest` for one of them. That is the first, unless this process has been told otherwise:
`follow` gives it the choices of its run, and `measuring` finds out those that are missing, by the clock. A run measures
at start, on one rank, and keeps what it found (trainer/run/formulations.py): another choice would be another rounding.

It lies here because `embeddings` and `models` share it and cannot import each other.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

Way = TypeVar("Way", bound=Callable[..., Any])

_SECONDS, _ROUNDS = 0.01, 3  # of each way: it is measured for so long, and in so many rounds at least
_WORTH_IT = 1.25  # times as fast as the first way: below that, runs should not differ by the noise of a clock


class _Choices:
    """Of this process; what is chosen for, such as "mixture 3x4x32x4096", and the name of the way."""

    names: dict[str, str] = {}
    is_measuring = False


def follow(choices: Mapping[str, str]) -> None:
    """From now on, take these ways, and the first one wherever nothing is said."""
    _Choices.names = dict(choices)


def followed() -> dict[str, str]:
    """The choices that this process follows."""
    return dict(_Choices.names)


@contextmanager
def measuring() -> Iterator[None]:
    """In here, what has not been chosen yet is measured and chosen."""
    before, _Choices.is_measuring = _Choices.is_measuring, True
    try:
        yield
    finally:
        _Choices.is_measuring = before


def fastest(what: str, ways: Mapping[str, Way], *arguments: Any) -> Way:
    """One of `ways`, which may be measured on `arguments`: it must do no harm to call each several times."""
    chosen = ways.get(_Choices.names.get(what, ""))
    if chosen is not None:
        return chosen
    if _Choices.is_measuring and len(ways) > 1:
        _Choices.names[what] = _measured(ways, arguments)
        return ways[_Choices.names[what]]
    return next(iter(ways.values()))


def _measured(ways: Mapping[str, Callable[..., Any]], arguments: tuple[Any, ...]) -> str:
    """The way whose fastest call is the fastest by far; they take turns, so that a busy machine slows them alike."""
    best = dict.fromkeys(ways, float("inf"))
    for way in ways.values():
        way(*arguments)  # fills caches, makes kernels
    rounds, deadline = 0, time.perf_counter() + _SECONDS * len(ways)
    while rounds < _ROUNDS or time.perf_counter() < deadline:
        for name, way in ways.items():
            started = time.perf_counter()
            way(*arguments)
            best[name] = min(best[name], time.perf_counter() - started)
        rounds += 1
    first, quickest = next(iter(best)), min(best, key=lambda name: best[name])
    return quickest if best[first] > _WORTH_IT * best[quickest] else first
