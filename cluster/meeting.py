"""What follows from what the agents of a launch tell: a new attempt, an end, a fault. No Ray and no clock in here.

An *attempt* is one life of the processes that call the function, all of them together. It begins when every agent is
there, and ends when one process of it fails: then all are ended, and the next attempt begins. Agents themselves are
started anew by Ray where one of them is lost, as a new *group*.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from cluster.worker import Fault

STOPPED_S = 6.0
"""A process that was stopped (SIGSTOP) for as long as this is lost; a shorter stop is none."""
SILENT_S = 20.0
"""An agent that was not heard for as long as this is lost. Agents import nothing large and compute nothing."""
_LOST_PEER = re.compile(
    "connection closed by peer|connection reset|broken pipe|socket timeout|connect.* (refused|timed? ?out)"
    "|timed out waiting|remote process exited|nccl|distbackenderror|peer",
    re.IGNORECASE,
)


class Verdict(StrEnum):
    """What agents do with their processes."""

    GO_ON = "go on"
    AGAIN = "again"  # end the process, begin the next attempt
    LEAVE = "leave"  # the processes have saved and ended: Ray places the group anew
    OVER = "over"  # all ranks are done, or nothing more may be tried


class Cause(NamedTuple):
    """Why a rank failed."""

    text: str
    is_death: bool
    """The process or its host is gone; other ranks may have failed because of it."""

    @property
    def weight(self) -> int:
        """The lower, the nearer to what went wrong first."""
        if self.is_death:
            return 0
        return 2 if _LOST_PEER.search(self.text) else 1


class Report(NamedTuple):
    """What an agent says of its process, once a second."""

    beats: int
    step: int | None
    stopped_s: float
    """For how long it has been stopped by now."""


class Call(NamedTuple):
    """The next attempt."""

    attempt: int
    address: str
    """HOST:PORT of the process group."""
    faults: tuple[Fault, ...]


class Limits(NamedTuple):
    """What a launch survives."""

    max_failures: int
    """Since the last change of what is saved; -1: any number."""
    hang_timeout_s: float


@dataclass
class Meeting:
    """Of the agents of one launch.

    Attributes:
        saved: tells what is saved by now: a text that changes with it, or None where that is not known.
        said: takes the lines that a fault is worth.
        describe: the lines of a fault, from causes and hosts by rank.
    """

    limits: Limits
    saved: Callable[[], str | None]
    said: Callable[[str], None]
    describe: Callable[[Mapping[int, Cause], Mapping[int, str]], list[str]]
    faults: list[Fault] = field(default_factory=list)
    given_up: str | None = None
    mistake: str | None = None
    result: object = None
    stops: bool = False
    group: int = 0
    attempt: int = 0
    leaving: str = ""
    """Why the processes are asked to save and end while the run goes on elsewhere."""
    _size: int = 0
    _arrived: dict[int, tuple[str, str]] = field(default_factory=dict)
    _hosts: dict[int, str] = field(default_factory=dict)
    _heard: dict[int, float] = field(default_factory=dict)
    _reports: dict[int, Report] = field(default_factory=dict)
    _moved: float | None = None
    _done: set[int] = field(default_factory=set)
    _failed: dict[int, Cause] = field(default_factory=dict)
    _failed_at: float = 0.0
    _is_settled: bool = False  # what fails later in the same attempt follows from what has failed
    _failures: int = 0
    _first: list[str] = field(default_factory=list)
    _saved_at_failure: str | None = None
    verdict: Verdict = Verdict.GO_ON
    hangs: bool = False
    """Whether the attempt ends for want of steps: the agents then look what their processes are doing."""

    def begin_group(self, size: int) -> int:
        """Ray started new agents, as many as `size`; their number."""
        self.group, self._size = self.group + 1, size
        self._arrived.clear()
        self._heard.clear()
        self._is_settled = False
        self.leaving = ""
        return self.group

    def arrive(self, group: int, rank: int, host: str, address: str, now: float, wall: float) -> None:
        """The agent of a rank is ready for the next attempt, which begins when all are."""
        if group != self.group:
            return
        self._arrived[rank] = (host, address)
        self._heard[rank] = now
        if len(self._arrived) < self._size:
            return
        self.settle(wall)
        if self.is_over:
            return
        self.attempt += 1
        self._is_settled = False
        self._hosts = {rank: host for rank, (host, _) in self._arrived.items()}
        self._address = self._arrived[0][1]
        self._arrived.clear()
        self._done.clear()
        self._reports.clear()
        self._moved, self.hangs, self.verdict = None, False, Verdict.GO_ON
        self._heard = dict.fromkeys(range(self._size), now)

    def has_begun(self, rank: int) -> bool:
        """Whether the attempt has begun for which this rank arrived."""
        return self.attempt > 0 and rank not in self._arrived

    def missing(self) -> list[int]:
        """Ranks whose agents have not arrived for the next attempt."""
        return [rank for rank in range(self._size) if rank not in self._arrived]

    @property
    def is_over(self) -> bool:
        return self.given_up is not None or self.mistake is not None

    def call(self) -> Call:
        return Call(self.attempt, self._address, tuple(self.faults))

    def hear(self, group: int, rank: int, report: Report, now: float) -> None:
        if group != self.group:
            return
        before = self._reports.get(rank)
        if report.beats and (before is None or report.beats != before.beats):
            self._moved = now
        self._reports[rank], self._heard[rank] = report, now

    def done(self, group: int, rank: int, result: object) -> None:
        """The function returned on this rank."""
        if group != self.group:
            return
        self._done.add(rank)
        if rank == 0:
            self.result = result
        if len(self._done) == self._size and self.verdict is Verdict.GO_ON:
            self.verdict = Verdict.LEAVE if self.leaving and not self.stops else Verdict.OVER

    def err(self, message: str) -> None:
        """A rank met a mistake of the user's, which no new attempt mends."""
        self.mistake = self.mistake or message
        self.verdict = Verdict.OVER

    def fail(self, group: int, causes: Mapping[int, Cause], wall: float) -> None:
        """Ranks have failed; the attempt is ended. The first cause of a rank stays, but for a death."""
        if group != self.group or not causes or self._is_settled:
            return
        if not self._failed:
            self._failed_at = wall
        for rank, cause in causes.items():
            if rank not in self._failed or cause.weight < self._failed[rank].weight:
                self._failed[rank] = cause
        if self.verdict is Verdict.GO_ON:
            self.verdict = Verdict.AGAIN

    def _step(self) -> int | None:
        """Steps done in this attempt, if any rank has told."""
        return max((report.step for report in self._reports.values() if report.step is not None), default=None)

    def fail_to_start(self, cause: Cause, wall: float) -> None:
        """Ray could not start the agents of a new group."""
        self._is_settled = False
        self.fail(self.group, {0: cause}, wall)

    def look(self, now: float, wall: float) -> None:
        """Finds ranks that are stopped, silent, or without a step for too long; to be called once in a while."""
        if self.verdict is not Verdict.GO_ON or not self.attempt or not self._heard:
            return
        lost = {
            rank: Cause("its agent was not heard any more: its host is lost, cut off, or stopped", True)
            for rank, heard in self._heard.items()
            if now - heard >= SILENT_S and rank not in self._done
        }
        stopped = {
            rank: Cause(f"its process was stopped (SIGSTOP) for {report.stopped_s:.0f} s", True)
            for rank, report in self._reports.items()
            if report.stopped_s >= STOPPED_S
        }
        if lost or stopped:
            self.fail(self.group, lost | stopped, wall)
        elif self._moved is not None and now - self._moved >= self.limits.hang_timeout_s and not self._done:
            self.hangs = True
            self.verdict = Verdict.AGAIN
            self._failed_at = wall

    def settle(self, wall: float) -> None:
        """Counts and tells the failure of the attempt that has ended, if it failed; may give up."""
        if not self._failed:
            return
        saved = self.saved()
        if saved is not None and saved != self._saved_at_failure:
            self._failures, self._first, self._saved_at_failure = 0, [], saved
        self._failures += 1
        first = min(cause.weight for cause in self._failed.values())
        causes = {rank: cause for rank, cause in self._failed.items() if cause.weight == first}
        blamed = min(causes)
        host = self._hosts.get(blamed, "?")
        self.faults.append(Fault(blamed, host, self._step(), causes[blamed].text, self._failed_at or wall))
        lines = self.describe(causes, self._hosts)
        self._first = self._first or lines
        self._failed.clear()
        self._is_settled = True
        limit = self.limits.max_failures
        if 0 <= limit < self._failures:
            since = "since the last save" if self._failures > 1 else ""
            self.given_up = "\n".join(
                [f"more failures {since} than launch.max_failures={limit}, the first:".replace("  ", " "), *self._first]
            )
            self.verdict = Verdict.OVER
            return
        allowed = "any number" if limit < 0 else limit
        for line in [*lines, f"failure {self._failures} of {allowed} since the last save: going on from there"]:
            self.said(line)
