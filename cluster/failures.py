"""What the exceptions mean with which Ray tells that it lost an agent.

Ray's own exceptions show a worker's whole description, in which the host and the cause are hard to find.
"""

import re

from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from cluster.agent import LeavingError
from cluster.meeting import Cause
from configs.errors import Failure

_LONGEST = 300  # characters of a cause

_DEATHS = (
    (r"node has died|node was terminated|node is dead", "its host is lost"),
    (r"running low on memory|NODE_OUT_OF_MEMORY", "its host ran out of memory, and Ray killed it"),
    (r"failed to connect to all addresses|Connection refused", "nothing answers on its host"),
    (r"killed by `ray.kill`", "it was killed by another Ray call"),
    (
        r"worker process has died",
        "its process was killed, or crashed (a signal, no memory, native code)",
    ),
)
"""What Ray says of an actor that is dead -> what that means."""


def is_leaving(error: Exception) -> bool:
    """Whether an agent ended only to be placed anew."""
    return isinstance(getattr(error, "_base_exc", error), LeavingError)


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
