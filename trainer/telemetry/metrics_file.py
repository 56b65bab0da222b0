"""metrics.jsonl: one JSON object a line, with its step. A run that goes on from a checkpoint drops what it will repeat.

Leaves what the lines say to `records`. Rank 0 writes it.
"""

import json
from pathlib import Path
from typing import Any

from trainer.run.folder import Folder


class MetricsFile:
    """Appends lines."""

    def __init__(self, path: Path, resume_step: int | None) -> None:
        """resume_step: of the checkpoint that the run goes on from; later lines go. None, a beginning: all go."""
        if path.exists():
            _keep(path, 0 if resume_step is None else resume_step + 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: str) -> None:
        """Appends one JSON object, which has a "step"; it can be read at once."""
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines, in order, without those that a crash cut short."""
    return [json.loads(line) for line in _whole_lines(path)]


def _keep(path: Path, below: int) -> None:
    """Rewrites the file, at once, with the lines of steps below `below`."""
    lines = [line for line in _whole_lines(path) if json.loads(line)["step"] < below]
    Folder(path.parent).write_bytes(path.name, "".join(f"{line}\n" for line in lines).encode())


def _whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if _is_whole(line)]


def _is_whole(line: str) -> bool:
    try:
        return "step" in json.loads(line)
    except (ValueError, TypeError):
        return False
