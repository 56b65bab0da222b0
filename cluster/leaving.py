"""Takes this host out of its Ray cluster: its workers get a time in which they can save, then Ray ends here.

    python -m cluster.leaving --seconds 60

Whoever takes a machine away calls it first: the preStop of a pod, a systemd unit, a Slurm job's signal handler. Ray
starts nothing new on the host, tells the run that the host goes, and ends here once nothing works any more. `ray stop`
and SIGTERM to `ray start` give workers no time at all.
"""

import argparse
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import ray._raylet
from ray.core.generated import autoscaler_pb2

_raylet_module: Any = ray._raylet  # compiled, and declared nowhere
_declared: Any = autoscaler_pb2
_PREEMPTION = _declared.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
_LOOK_S = 0.2
_REASON = "the host is taken away"


class Raylet(NamedTuple):
    """Ray's process for this host."""

    pid: int
    node_id: str
    gcs_address: str


def leave(raylet: Raylet, seconds: float) -> bool:
    """Whether Ray has ended here within so many seconds."""
    end = time.time() + seconds
    client: Any = _raylet_module.GcsClient(address=raylet.gcs_address)
    accepted, why = client.drain_node(raylet.node_id, _PREEMPTION, _REASON, int(end * 1000))
    if not accepted:
        _say(f"Ray does not let the host go: {why}")
        return False
    while time.time() < end:
        if not _lives(raylet.pid):
            _say("nothing works on this host any more, and Ray has ended here")
            return True
        time.sleep(_LOOK_S)
    _say(f"something still works on this host after {seconds:g} s")
    return False


def raylets(address: str | None) -> list[Raylet]:
    """Of this host; of one cluster where an address is given."""
    found = [_raylet(entry) for entry in Path("/proc").glob("[0-9]*")]
    return [one for one in found if one and address in (None, one.gcs_address)]


def _raylet(process: Path) -> Raylet | None:
    try:
        program, *given = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it has ended
        return None
    if not program.endswith("/raylet/raylet"):
        return None
    options = dict(word.removeprefix("--").split("=", 1) for word in given if "=" in word)
    return Raylet(int(process.name), options["node_id"], options["gcs-address"])


def _lives(pid: int) -> bool:
    try:
        return not re.search(r"^State:\s+Z", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return False


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201


def main() -> int:
    """Exit code 0 when Ray has ended here, 1 when the time was over before, 2 without Ray."""
    parser = argparse.ArgumentParser(prog="python -m cluster.leaving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="For which workers may go on and save.")
    parser.add_argument("--address", default=os.environ.get("RAY_ADDRESS"), help="Of the head; RAY_ADDRESS.")
    given = parser.parse_args()
    there = raylets(given.address)
    if not there:
        _say("Ray does not run on this host: nothing has to be done")
        return 2
    with ThreadPoolExecutor(len(there)) as threads:
        return 0 if all(threads.map(lambda raylet: leave(raylet, given.seconds), there)) else 1


if __name__ == "__main__":
    sys.exit(main())
