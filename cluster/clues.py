"""What is said of ranks that failed: rank, host, step, cause and log file, a line for each."""

from collections.abc import Mapping
from typing import Protocol

from cluster.meeting import Cause

_SHOWN = 4  # ranks that one failure names


class Clues(Protocol):
    """What the caller of `launch` knows of its function, asked when a worker has failed; sent to another process."""

    def log_of(self, rank: int) -> str:
        """Where the log of a rank is."""
        ...

    def progress(self) -> str:
        """How far the function was, such as `after step 1,240`; may be empty."""
        ...

    def saved(self) -> str:
        """What the function has saved by now: a text that changes with it."""
        ...


def failure_lines(causes: Mapping[int, Cause], hosts: Mapping[int, str], clues: Clues) -> list[str]:
    """A line for each failed rank, as many as fit on a screen.

    hosts: rank -> where it ran.
    """
    try:
        progress = clues.progress()
    except OSError:  # of the storage, which may be what failed
        progress = ""
    when = f" {progress}" if progress else ""
    lines = []
    for rank in sorted(causes)[:_SHOWN]:
        where = f" on {hosts[rank]}" if rank in hosts else ""
        lines.append(f"rank {rank}{where} failed{when}: {causes[rank].text} ({clues.log_of(rank)})")
    if len(causes) > _SHOWN:
        lines.append(f"and {len(causes) - _SHOWN:,} more ranks with them")
    return lines


def saved(clues: Clues) -> str | None:
    """What is saved by now; None where the storage does not say."""
    try:
        return clues.saved()
    except OSError:
        return None
