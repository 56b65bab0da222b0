"""What is said of workers that failed: rank, host, step, cause and log file, a line for each.

Ray's own exceptions show a worker's whole description, in which the host and the cause are hard to find.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import ray
from ray.exceptions import RayActorError
from ray.train import UserCallback
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from configs.errors import Failure, UserError

_SHOWN = 4  # ranks that one failure names: the others lost their peers
_LONGEST = 300  # characters of a cause

_DEATHS = (
    (r"node has died|node was terminated|node is dead", "its host is lost"),
    (r"running low on memory|NODE_OUT_OF_MEMORY", "its host ran out of memory, and Ray killed it"),
    (r"killed by `ray.kill`", "it was killed by another Ray call"),
    (
        r"worker process has died",
        "its process was killed, or crashed (a signal, no memory, native code)",
    ),
)
"""What Ray says of an actor that is dead -> what that means."""


class Clues(Protocol):
    """What the caller of `launch` knows of its function, asked when a worker has failed; sent to another process."""

    def log_of(self, rank: int) -> str:
        """Where the log of a rank is."""
        ...

    def progress(self) -> str:
        """How far the function was, such as `after step 1,240`; may be empty."""
        ...


class Cause(NamedTuple):
    """Why a worker failed."""

    text: str
    is_death: bool
    """The process or its host is gone; other ranks may have failed because of it."""


def failure_lines(exceptions: Mapping[int, Exception], hosts: Mapping[int, str], clues: Clues) -> list[str]:
    """A line for each failed rank, those that died first; what follows from them is cut short.

    hosts: rank -> where it ran.
    """
    causes = {rank: cause_of(error) for rank, error in exceptions.items()}
    ranks = sorted(causes, key=lambda rank: (not causes[rank].is_death, rank))
    progress = clues.progress()
    when = f" {progress}" if progress else ""
    lines = []
    for rank in ranks[:_SHOWN]:
        where = f" on {hosts[rank]}" if rank in hosts else ""
        lines.append(f"rank {rank}{where} failed{when}: {causes[rank].text} ({clues.log_of(rank)})")
    if len(ranks) > _SHOWN:
        lines.append(f"and {len(ranks) - _SHOWN:,} more ranks with them")
    return lines


def cause_of(error: Exception) -> Cause:
    """What a worker's exception means."""
    if isinstance(error, WorkerHealthCheckTimeoutError):
        return Cause("it does not answer: stopped, or hanging", True)
    if isinstance(error, WorkerHealthCheckFailedError):
        return cause_of(error.health_check_failure)
    if isinstance(error, RayActorError):
        return Cause(_death(str(error)), True)
    inner = getattr(error, "cause", None)  # of a RayTaskError
    if isinstance(inner, Exception):
        return cause_of(inner)
    if isinstance(error, Failure):  # written for users: what is wrong, and what to do
        return Cause(" ".join(line.strip() for line in str(error).splitlines()), False)
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return Cause(f"{type(error).__name__}: {said}"[:_LONGEST].removesuffix(": "), False)


def _death(text: str) -> str:
    meaning = next((meaning for pattern, meaning in _DEATHS if re.search(pattern, text)), None)
    if meaning is None:
        return "it does not answer any more: " + (text.splitlines() or ["?"])[-1].strip()[:_LONGEST]
    address, process = re.search(r"\bip: (\S+)", text), re.search(r"\bpid: (\d+)", text)
    known = [f"{name} {match[1]}" for name, match in (("process", process), ("address", address)) if match]
    return meaning + (f" ({', '.join(known)})" if known else "")


class TellFailures(UserCallback):
    """Says on the driver's screen which rank failed, where and why, before Ray starts the group again.

    Of the failure that ends the run `launch` does.
    """

    def __init__(self, channel: Any, max_failures: int, clues: Clues) -> None:
        self._channel, self._max_failures, self._clues, self._failures = channel, max_failures, clues, 0

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        if any(isinstance(error, UserError) for error in worker_exceptions.values()):
            return  # reported once, at the end
        self._failures += 1
        if 0 <= self._max_failures < self._failures:
            return
        allowed = "any number" if self._max_failures < 0 else self._max_failures
        hosts: dict[int, str] = ray.get(self._channel.hosts.remote())  # pyright: ignore[reportAssignmentType]
        for line in failure_lines(worker_exceptions, hosts, self._clues):
            self._channel.say.remote(line)
        self._channel.say.remote(f"failure {self._failures} of {allowed} that the run survives")
