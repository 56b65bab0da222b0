"""What a launched function knows of its place in the cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Fault(NamedTuple):
    """What ended an attempt of a launch."""

    rank: int | None
    host: str
    step: int | None
    """Steps done when it happened, if known."""
    cause: str
    time: float
    """Unix time at which it was noticed."""


@dataclass(frozen=True)
class Worker:
    """One of `world_size` processes that call the function together."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node: str
    device: str
    say: Callable[[str], None]
    """Prints a line on the driver's screen."""
    stops: Callable[[], bool] = lambda: False
    """Whether the driver has been told to stop (Ctrl-C, SIGTERM), or this worker's host is about to go: the function
    should save, and return. Costs nothing, so it may be asked at every step."""
    beat: Callable[[int], None] = lambda step: None
    """Tells that the function goes on: steps done. Costs nothing, so it may be called after every step and every batch
    of an evaluation. A worker that waits for others (for their part of a sum) does not call it: the function goes on
    as long as one of them does."""
    faults: tuple[Fault, ...] = ()
    """What ended earlier attempts of this launch, oldest first."""
