"""Three numbers that a process and its agent share: a mapped file, so telling and reading them costs nothing.

The process counts its beats and says its step; the agent asks it to stop.
"""

import mmap
from pathlib import Path

_FORMAT, _NUMBERS = "q", 3  # 64-bit integers
_BEATS, _STEP, _STOPS = range(_NUMBERS)


class Board:
    """What lies at `path`. Written by one side each, a number at a time."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _NUMBERS * 8)
        self._numbers = memoryview(self._map).cast(_FORMAT)

    @classmethod
    def new(cls, path: Path) -> "Board":
        """One whose numbers are zero. An older one at `path` stays with whoever has it open."""
        path.unlink(missing_ok=True)
        path.write_bytes(bytes(_NUMBERS * 8))
        return cls(path)

    def beat(self, step: int) -> None:
        self._numbers[_STEP] = step
        self._numbers[_BEATS] += 1

    @property
    def beats(self) -> int:
        return self._numbers[_BEATS]

    @property
    def step(self) -> int | None:
        """None before the first beat."""
        return self._numbers[_STEP] if self.beats else None

    def stop(self) -> None:
        self._numbers[_STOPS] = 1

    def stops(self) -> bool:
        return bool(self._numbers[_STOPS])
