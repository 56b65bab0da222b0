"""What a launched function knows of its place in the cluster."""

from collections.abc import Callable
from dataclasses import dataclass


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
    """Whether the driver has been told to stop (Ctrl-C, SIGTERM): the function should save, and return."""
