"""Watches a run from outside, by the files that it writes: when it does what after a fault.

metrics.jsonl has a line per step with its time, the screen has what the driver says, logs/attempt_N what each rank
says. Nothing is asked of the run, so watching costs it nothing.
"""

import os
import re
import threading
import time
from datetime import datetime
from pathlib import Path

from trainer.telemetry.metrics_file import read_metrics

_LOOK_S = 0.02
_STAMP = r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) INFO trainer.session: "
_BUILT, _LOADED = "the model is built", "is loaded"
_HERTZ = os.sysconf("SC_CLK_TCK")


class Watch:
    """What a run does, while it is watched; times are of time.time()."""

    def __init__(self, run_dir: Path, screen: Path) -> None:
        self.run_dir = run_dir
        self.said: list[tuple[float, str]] = []  # when, line of the screen; but for those of steps
        self.attempts: list[float] = []  # when each attempt of the run began
        self.steps: list[tuple[int, float]] = [(0, 0.0)]  # steps beyond all before, and when they were done
        self._screen, self._screen_at = screen, 0
        self._metrics = 0, 0  # the file and its size at the last look
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_S):
            self._read_screen()
            self._count_attempts()
            self._read_steps()

    def _read_screen(self) -> None:
        with self._screen.open() as file:
            file.seek(self._screen_at)
            lines = file.read()
        whole = lines[: lines.rfind("\n") + 1]
        self._screen_at += len(whole.encode())
        self.said += [(time.time(), line) for line in whole.splitlines() if not line.startswith("step ")]

    def _count_attempts(self) -> None:
        if (self.run_dir / f"logs/attempt_{len(self.attempts) + 1}").exists():
            self.attempts.append(time.time())

    def _read_steps(self) -> None:
        """From the end of the file, which is long and is looked at often."""
        metrics = self.run_dir / "metrics.jsonl"
        try:
            found = metrics.stat()
        except FileNotFoundError:
            return
        if (found.st_ino, found.st_size) == self._metrics:
            return
        self._metrics = found.st_ino, found.st_size
        with metrics.open("rb") as file:
            file.seek(max(found.st_size - 8192, 0))
            whole = file.read().split(b"\n")[:-1]
        for line in whole:
            step, at = re.search(rb'"step": (\d+)', line), re.search(rb'"time": ([\d.]+)', line)
            if step and at and int(step[1]) > self.steps[-1][0]:
                self.steps.append((int(step[1]), float(at[1])))

    def first_step_after(self, moment: float) -> float:
        """When a step was done first after it; new or not."""
        return next(line["time"] for line in read_metrics(self.run_dir / "metrics.jsonl") if line["time"] > moment)

    def opened(self, attempt: int) -> tuple[float, float]:
        """When an attempt had built its model, and when it had loaded the newest state."""
        log = self.rank_logs(attempt)[0].read_text()
        return _stamp(log, _BUILT), _stamp(log, _LOADED)

    def rank_logs(self, attempt: int) -> list[Path]:
        folder = self.run_dir / f"logs/attempt_{attempt}"
        return [folder / f"rank_{rank}.log" for rank in range(len(list(folder.glob("rank_*.log"))))]


def started(pid: int) -> float:
    """When a process was started or forked; 0 if it has ended."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[19])
    except OSError:
        return 0.0
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + ticks / _HERTZ


def _stamp(log: str, what: str) -> float:
    found = re.search(_STAMP + f".*{what}", log, re.M)
    assert found, f"no line {what!r} in\n{log[-2000:]}"
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").timestamp() + int(found[2]) / 1000
