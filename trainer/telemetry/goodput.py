"""Goodput: the share of a run's time in which it trained steps that were never trained before; and what faults cost.

    launch         new steps          fault    repeats  new steps        evaluation      new steps    end
      |-- start --|===================|--------lost----|=================|...............|============|
                  trained                               trained            a pause        trained

The run's time is all time from its first launch on, without pauses: evaluations, waiting for new partitions, and what
lies between a launch that ended by itself (done, stopped, given up) and the next one. Where a job was killed, the time
to the next new step is lost. A fault costs the time from when it was noticed to the next new step, or the next fault.

Rank 0 counts. What was counted lies in the lines of metrics.jsonl and in history.jsonl (`trainer.run.history`).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cluster.worker import Fault
from trainer.run import history
from trainer.telemetry.console import duration
from trainer.telemetry.metrics_file import read_metrics

_TRAINED, _SPENT, _REACHED = "run/trained_seconds", "run/seconds", "run/reached"  # tags of metrics.jsonl
_SHOWN = 3  # faults that the last line names
Lines = Sequence[Mapping[str, Any]]


class Tally(NamedTuple):
    """What a run has used its time for, up to a time."""

    time: float
    trained: float = 0.0
    """Seconds in which new steps were trained."""
    spent: float = 0.0
    """Seconds of the run in all, without pauses."""
    reached: int = 0
    """The largest step that was ever trained."""

    def since(self, before: "Tally") -> "Tally":
        return self._replace(trained=self.trained - before.trained, spent=self.spent - before.spent)

    @property
    def goodput(self) -> float:
        return min(self.trained / self.spent, 1.0) if self.spent > 0 else 0.0


class Lost(NamedTuple):
    """A fault, and the seconds until a new step was trained."""

    fault: Fault
    seconds: float


def carried(lines: Lines, metrics: Lines, now: float) -> tuple[Tally, Fault | None]:
    """What was counted before this attempt; and, where the launch before was killed, that as a fault.

    Args:
        lines: of the history.
        metrics: of metrics.jsonl, those of steps that will be repeated too.
        now: stands for the launch where the history has none.
    """
    launched = max((line["time"] for line in lines if line["kind"] == "launch"), default=now)
    tallies = [_tally(line) for line in lines if "spent" in line]
    tallies += [
        Tally(line["time"], line[_TRAINED], line[_SPENT], int(line[_REACHED])) for line in metrics if line.get(_SPENT)
    ]
    if not tallies:
        return Tally(launched), None
    newest = max(tallies, key=lambda tally: (tally.time, tally.spent))
    newest = newest._replace(reached=max(tally.reached for tally in tallies))
    if newest.time > launched:  # an attempt of this launch
        return newest, None
    if any(line["kind"] == "end" and line["time"] >= newest.time for line in lines):
        return newest._replace(time=launched), None
    return newest, Fault(None, "", newest.reached, "the job was killed", newest.time)


def costs(faults: Sequence[Fault], new_step: float) -> list[Lost]:
    """What each of some faults cost, after which the first new step was trained at a time."""
    in_order = sorted(faults, key=lambda fault: fault.time)
    times = [*(fault.time for fault in in_order), new_step]
    return [Lost(fault, max(0.0, end - fault.time)) for fault, end in zip(in_order, times[1:], strict=True)]


def summary(launch: Tally, run: Tally, start: float | None, lost: Sequence[Lost]) -> str:
    """`goodput 97.3% of 2h14m, 41s to start; 3 faults: 12.0 s lost (rank 1 killed at step 1,240: 4.1 s; ...)`

    Args:
        launch, run: what was counted in this launch, and since the first start.
        start: seconds from the launch to its first new step; None where it had none.
    """
    text = f"goodput {launch.goodput:.1%} of {duration(launch.spent)}"
    if start is not None:
        text += f", {duration(start)} to start"
    if run.spent > launch.spent:
        text += f" ({run.goodput:.1%} of {duration(run.spent)} since the first start)"
    if not lost:
        return f"{text}; no faults"
    worst = sorted(lost, key=lambda one: -one.seconds)
    named = [f"{_named(one.fault)}: {one.seconds:.1f} s" for one in worst[:_SHOWN]]
    more = [f"and {len(worst) - _SHOWN:,} more"] if len(worst) > _SHOWN else []
    seconds = sum(one.seconds for one in lost)
    count = f"{len(lost):,} fault{'s' if len(lost) > 1 else ''}"
    return f"{text}; {count}: {seconds:.1f} s lost ({'; '.join([*named, *more])})"


def _named(fault: Fault) -> str:
    who = "" if fault.rank is None else f"rank {fault.rank}{f' on {fault.host}' if fault.host else ''}: "
    when = "" if fault.step is None else f" after step {fault.step:,}"
    cause = fault.cause.partition(";")[0].partition(" (")[0]
    return f"{who}{cause[:80]}{when}"


def _tally(line: Mapping[str, Any]) -> Tally:
    return Tally(line["time"], line["trained"], line["spent"], line["reached"])


def _open(lines: Lines) -> list[Fault]:
    """What was noticed since the last launch that ended by itself, and cost time until now."""
    ends = [place for place, line in enumerate(lines) if line["kind"] == "end"]
    lately = lines[ends[-1] :] if ends else lines
    closed = {line["time"] for line in lately if line["kind"] == "fault"}
    noticed = [_fault(line) for line in lately if line["kind"] == "noticed"]
    return [fault for fault in noticed if fault.time not in closed]


def _fault(line: Mapping[str, Any]) -> Fault:
    return Fault(*(line[name] for name in Fault._fields))


def _lost(line: Mapping[str, Any]) -> Lost:
    return Lost(_fault(line), line["lost"])


class Goodput:
    """Counts, on rank 0; elsewhere it does nothing that costs time."""

    def __init__(
        self,
        path: Path,
        metrics: Path,
        faults: Sequence[Fault],
        step: int,
        *,
        counts: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make it before metrics.jsonl is cut for the steps that will be repeated.

        Args:
            path: of the history.
            faults: of this launch, oldest first.
            step: from which this attempt goes on.
            counts: whether this is rank 0.
        """
        self._path, self._clock, self._counts = path, clock, counts
        lines = history.read(path) if counts else []
        self._tally, killed = carried(lines, read_metrics(metrics) if counts else [], clock())
        self._open = _open(lines)
        noticed = {line["time"] for line in lines if line["kind"] in ("noticed", "fault")}
        for fault in (*faults, *([killed] if killed else [])):
            if fault.time not in noticed and counts:
                self._open.append(fault)
                history.append(path, "noticed", **fault._asdict())
        reached = max([self._tally.reached, step, *(fault.step or 0 for fault in faults)])
        self._tally = self._tally._replace(reached=reached)
        launches = [place for place, line in enumerate(lines) if line["kind"] == "launch"]
        here = lines[launches[-1] :] if launches else []
        self._launched = here[0]["time"] if here else self._tally.time
        first = next((_tally(line) for line in here if line["kind"] == "attempt"), self._tally)
        self._at_launch = first._replace(spent=max(0.0, first.spent + self._launched - first.time))
        self._start = next((line["seconds"] for line in here if line["kind"] == "first_step"), None)
        self._lost = [_lost(line) for line in here if line["kind"] == "fault"]
        costs_before = [line["lost"] for line in lines if line["kind"] == "fault"]
        self._faults, self._lost_before = len(costs_before), sum(costs_before)
        self._mark: float | None = None  # the end of the step before
        self._write("attempt", step=step)

    def step(self, step: int) -> None:
        """A step is done; what went by since the one before, but for pauses and saves, is its time."""
        now = self._clock()
        if step > self._tally.reached and self._counts:
            seconds = 0.0 if self._mark is None else max(0.0, now - self._mark)
            self._tally = self._tally._replace(reached=step, trained=self._tally.trained + seconds)
            if self._open:
                self._close_faults(now)
            if self._start is None:
                self._start = now - self._launched
                history.append(self._path, "first_step", time=now, step=step, seconds=self._start)
        self._mark = now

    def _close_faults(self, now: float) -> None:
        """A new step is done after them, or the launch ends."""
        for one in costs(self._open, now):
            values = one.fault._asdict() | {"lost": one.seconds}
            self._lost.append(_lost(history.append(self._path, "fault", **values)))
            self._faults, self._lost_before = self._faults + 1, self._lost_before + one.seconds
        self._open = []

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here is no time of the run."""
        began = self._clock()
        yield
        seconds = self._clock() - began
        self._tally = self._tally._replace(time=self._tally.time + seconds)  # as if the run had begun later
        self.stood_still(seconds)

    def stood_still(self, seconds: float) -> None:
        """For so long no step was trained, since the one before."""
        if self._mark is not None:
            self._mark += seconds

    def now(self) -> Tally:
        """What is counted by now."""
        now = self._clock()
        return self._tally._replace(time=now, spent=self._tally.spent + max(0.0, now - self._tally.time))

    def scalars(self) -> dict[str, float]:
        """Tag -> value."""
        tally = self.now()
        return {
            "run/goodput": tally.goodput,
            "run/faults": float(self._faults),
            "run/lost_seconds": self._lost_before,
            _TRAINED: tally.trained,
            _SPENT: tally.spent,
            _REACHED: float(tally.reached),
        }

    def finish(self) -> str:
        """At the end of a launch: the line for the screen."""
        if self._counts:
            self._close_faults(self._clock())
        self._write("finished")
        tally = self.now()
        return summary(tally.since(self._at_launch), tally, self._start, self._lost)

    def _write(self, kind: str, **values: Any) -> None:
        if self._counts:
            history.append(self._path, kind, **self.now()._asdict(), **values)
