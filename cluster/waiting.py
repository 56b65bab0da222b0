"""Waits until a Ray cluster has so many hosts.

    python -m cluster.waiting 10.0.0.1:6379 --nodes=8 --seconds=120

Whoever starts Ray on hosts one by one calls it before the run, which would be refused for want of room.
"""

import argparse
import sys
import time
from typing import Any

import ray._raylet
from ray.exceptions import RayError

_raylet: Any = ray._raylet  # compiled, and declared nowhere
_LOOK_S = 0.5
_ALIVE = 0  # of a node's state, in Ray's gcs.proto


def wait_for(address: str, nodes: int, seconds: float) -> int:
    """How many there are, as soon as there are so many; fewer when the time is over."""
    end, there = time.monotonic() + seconds, 0
    while True:
        try:
            there = _alive(address)
        except (RayError, RuntimeError, ConnectionError, TimeoutError):  # the head is not there yet
            there = 0
        if there >= nodes or time.monotonic() > end:
            return there
        time.sleep(_LOOK_S)


def _alive(address: str) -> int:
    client = _raylet.GcsClient(address=address)
    return sum(node.state == _ALIVE for node in client.get_all_node_info(timeout=2).values())


def main() -> int:
    """Exit code 1 when the time is over before."""
    parser = argparse.ArgumentParser(prog="python -m cluster.waiting", description=__doc__)
    parser.add_argument("address", help="Of the head.")
    parser.add_argument("--nodes", type=int, required=True, help="That must be alive, the head among them.")
    parser.add_argument("--seconds", type=float, default=120.0, help="For which it waits at most.")
    given = parser.parse_args()
    there = wait_for(given.address, given.nodes, given.seconds)
    if there < given.nodes:
        print(f"{there} of {given.nodes} hosts are there after {given.seconds:g} s", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
