"""Runs to which something happens: on this machine alone, and on hosts of `tests.cluster.hosts`."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.recovery.fault import Recovery, recovery, trains_on
from benchmarks.recovery.watch import Watch, started
from tests.cluster.hosts import QUICK_CHECKS, ROOT, Cluster, hosts

_QUICKSTART = ROOT / "configs" / "quickstart.yaml"
_SETTINGS = (
    "data.generate.validation_rows=0",
    "training.epochs=1000",
    "training.log_every=1",
    "checkpoint.delta_every_s=0.5",
    "launch.max_failures=-1",
)
_FIRST_S = 90  # until a run trains
_TRAINS_S = 4.0  # before something happens to it
_ENDS_S = 60


class RunFault:
    """What can be done to a run of two workers; each method returns None if the run did not come back in time."""

    def __init__(self, watch: Watch, limit_s: float, pid_of: Callable[[Path], int]) -> None:
        self._watch, self._limit_s, self._pid_of = watch, limit_s, pid_of

    def measure(self, fault: Callable[[], None]) -> Recovery | None:
        """The fault is made once the run has trained for some seconds; the time runs from then on."""
        return self._measure(lambda: (time.time(), fault())[0])

    def measure_after(self, change: Callable[[], None]) -> Recovery | None:
        """The time runs from when the change has been made."""
        return self._measure(lambda: (change(), time.time())[1])

    def _measure(self, fault: Callable[[], float]) -> Recovery | None:
        if not trains_on(self._watch, _TRAINS_S, _FIRST_S):
            return None
        return recovery(self._watch, fault, self._started, self._limit_s)

    def signal_rank(self, rank: int, number: signal.Signals) -> None:
        os.kill(self._pid_of(self._watch.rank_logs(len(self._watch.attempts))[rank]), number)

    def _started(self, attempt: int) -> list[float]:
        return [started(self._pid_of(log)) for log in self._watch.rank_logs(attempt)]


@contextmanager
def run_alone(folder: Path, limit_s: float) -> Iterator[RunFault]:
    """A run of two workers on a Ray of its own, as the README's first command starts it."""
    command = [sys.executable, "-m", "trainer", "train", str(_QUICKSTART), *_settings(folder), "launch.workers=2"]
    environment = os.environ | {"RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT)}
    screen = folder / "screen"
    with screen.open("w") as output, ExitStack() as stack:
        job = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        stack.callback(_end, job, lambda: job.send_signal(signal.SIGTERM))
        watch = Watch(folder / "run", screen)
        stack.callback(watch.close)
        yield RunFault(watch, limit_s, _pid_in)


@contextmanager
def run_on_hosts(folder: Path, limit_s: float) -> Iterator[tuple[RunFault, Cluster]]:
    """A run of one or two workers on two hosts with a core each."""
    with hosts(2, environment=QUICK_CHECKS) as cluster, ExitStack() as stack:
        screen = folder / "screen"
        elastic = ("launch.workers=2", "launch.min_workers=1")
        job = cluster.train(_QUICKSTART, *_settings(folder), *elastic, screen=screen)
        stack.callback(_end, job, lambda: cluster.signal_to(job, signal.SIGTERM))
        watch = Watch(folder / "run", screen)
        stack.callback(watch.close)
        yield RunFault(watch, limit_s, lambda log: cluster.rank_of(log.read_text()).process.pid), cluster


def _settings(folder: Path) -> tuple[str, ...]:
    return (*_SETTINGS, f"data.root={folder.parent / 'data'}", f"training.run_dir={folder / 'run'}")


def _pid_in(log: Path) -> int:
    found = re.search(r"(?:process|pid) (\d+) on ", log.read_text())
    assert found, f"no process in {log}"
    return int(found[1])


def _end(job: "subprocess.Popen", stop: Callable[[], None]) -> None:
    if job.poll() is None:
        stop()
        try:
            job.wait(timeout=_ENDS_S)
        except subprocess.TimeoutExpired:
            job.kill()
            job.wait()
