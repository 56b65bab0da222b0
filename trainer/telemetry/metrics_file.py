"""metrics.jsonl: one JSON object per line, with its step. A run that resumes drops what it will repeat.

Leaves what the lines say to `records`. Rank 0 writes it.
"""

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from trainer.run.folder import Folder


class Evaluated(NamedTuple):
    """An evaluation as its line has it."""

    step: int
    tasks: dict[str, dict[str, float]]  # task -> metric -> value; NaN where it is undefined


class MetricsFile:
    """Appends lines."""

    def __init__(self, path: Path, resume_step: int | None) -> None:
        """resume_step: of the checkpoint that the run resumes from; later lines go. None, a beginning: all go."""
        if path.exists():
            _keep(path, 0 if resume_step is None else resume_step + 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._file = path, path.open("a", encoding="utf-8")

    def write(self, line: str) -> None:
        """Appends one JSON object, which has a "step"; it can be read at once."""
        self._file.write(line + "\n")
        self._file.flush()

    def last_evaluation(self, tasks: Collection[str]) -> Evaluated | None:
        """The newest line of an evaluation; None where there is none."""
        lines = [line for line in read_metrics(self._path) if line.get("kind") == "eval"]
        if not lines:
            return None
        values = {task: _metrics(lines[-1], task) for task in tasks}
        return Evaluated(lines[-1]["step"], values)

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines, in order, without those that a crash cut short; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in _whole_lines(path)]


def _metrics(line: dict[str, Any], task: str) -> dict[str, float]:
    """Tags are METRIC/TASK."""
    found = {tag.removesuffix(f"/{task}"): value for tag, value in line.items() if tag.endswith(f"/{task}")}
    return {metric: math.nan if value is None else value for metric, value in found.items() if "/" not in metric}


def _keep(path: Path, below: int) -> None:
    """Rewrites the file, at once, with the lines of steps below `below`."""
    lines = [line for line in _whole_lines(path) if json.loads(line)["step"] < below]
    Folder(path.parent).write_bytes(path.name, "".join(f"{line}\n" for line in lines).encode())


def _whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if _is_whole(line)]


def _is_whole(line: str) -> bool:
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and isinstance(found.get("step"), int)
