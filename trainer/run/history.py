"""history.jsonl: what happened to a run, a line each: launches, attempts, first steps, faults, ends. It only grows.

    {"kind": "launch", "time": ...}      the driver is about to start workers; times are Unix seconds
    {"kind": "attempt", "time": ..., "step": ..., "reached": ..., "trained": ..., "spent": ...}
    {"kind": "noticed", "time": ..., "rank": ..., "host": ..., "step": ..., "cause": ...}   what broke an attempt off
    {"kind": "fault", "time": ..., "rank": ..., "host": ..., "step": ..., "cause": ..., "lost": ...}
    {"kind": "first_step", "time": ..., "step": ..., "seconds": ...}   the first new step of a launch
    {"kind": "finished", "time": ..., "reached": ..., "trained": ..., "spent": ...}     done, or stopped on request
    {"kind": "end", "time": ...}         the launch ended by itself; none if it was killed

What the numbers mean is `trainer.telemetry.goodput`'s business. Imports no torch: the driver writes too.
"""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


def append(path: Path, kind: str, **values: Any) -> dict[str, Any]:
    """Writes a line, beginning anew where a crash cut the one before; a disk that is full costs no run its history."""
    line = {"kind": kind, "time": time.time(), **values}
    with suppress(OSError), path.open("a+b") as file:
        is_cut = file.tell() > 0 and file.seek(-1, 2) >= 0 and file.read(1) != b"\n"
        file.write(b"\n" * is_cut + json.dumps(line).encode() + b"\n")
    return line


def read(path: Path) -> list[dict[str, Any]]:
    """The lines, in order, without those that a crash cut short."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            line = json.loads(text)
            if (
                isinstance(line, dict)
                and isinstance(line.get("kind"), str)
                and isinstance(line.get("time"), float | int)
            ):
                lines.append(line)
    return lines
