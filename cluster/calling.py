"""Calls the launched function in a process of its own: joins the process group, calls, and tells the agent the outcome.

What the function says on the way goes to the agent as well. Ray is not needed here.
"""

import faulthandler
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from cluster.board import Board
from cluster.worker import Fault, Worker
from configs.errors import Failure, UserError

_LONGEST = 300  # characters of a cause


class Place(NamedTuple):
    """Of a rank among the others, and of its agent."""

    group: int
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    host: str
    device: str
    cuda_index: int
    """Of the GPU among those that the process sees."""


class Order(NamedTuple):
    """What an agent asks of a process."""

    payload: bytes
    """The function and its argument, pickled."""
    place: Place
    address: str
    """HOST:PORT where the ranks meet."""
    timeout_s: int
    """Of a collective."""
    faults: tuple[Fault, ...]
    board: Path
    stacks: Path
    """Where the process writes what its threads are doing, on SIGUSR1."""


class Outcome(NamedTuple):
    """How a call ended. kind: "done", "mistake" (of the user's), "failed" (an exception); value: result or text."""

    kind: str
    value: Any


def call(agent: Connection, *, is_forked: bool) -> None:
    """Carries out the order that comes through `agent`, and ends this process."""
    order: Order = agent.recv()
    board = Board(order.board)
    stacks = order.stacks.open("w")
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
    signal.signal(signal.SIGTERM, lambda *_: board.stop())  # a host that goes tells its processes so
    speaking = threading.Lock()

    def tell(kind: str, value: Any) -> None:
        with speaking:
            agent.send((kind, value))

    tell("begun", (os.getpid(), is_forked))
    outcome = _outcome(order, board, lambda line: tell("line", line))
    try:
        tell(*outcome)
    except Exception as error:  # a result that cannot be sent
        tell("failed", f"{type(error).__name__}: {error}"[:_LONGEST])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of libraries sometimes abort a normal exit


def _outcome(order: Order, board: Board, say: Callable[[str], None]) -> Outcome:
    try:
        function, argument = pickle.loads(order.payload)
        place = order.place
        worker = Worker(
            rank=place.rank,
            world_size=place.world_size,
            local_rank=place.local_rank,
            local_world_size=place.local_world_size,
            node=place.host,
            device=place.device,
            say=say,
            stops=board.stops,
            beat=board.beat,
            faults=order.faults,
        )
        with _process_group(order):
            return Outcome("done", function(argument, worker))
    except UserError as error:
        return Outcome("mistake", str(error))
    except BaseException as error:  # SystemExit of a library, too
        traceback.print_exc()
        return Outcome("failed", _in_words(error))


def _in_words(error: BaseException) -> str:
    """One line; of a failure that was written for users with what to do."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, Failure):
        return " ".join(lines)
    return ": ".join([type(error).__name__, *lines[:1]])[:_LONGEST]


@contextmanager
def _process_group(order: Order) -> Iterator[None]:
    """The default process group, and the GPU of this rank as the current one. It ends only where all went well."""
    import torch
    import torch.distributed as dist

    place = order.place
    host, _, port = order.address.rpartition(":")
    os.environ |= {
        "MASTER_ADDR": host.strip("[]"),
        "MASTER_PORT": port,
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_world_size),
    }
    if place.device == "cuda":
        torch.cuda.set_device(place.cuda_index)
    dist.init_process_group(
        "nccl" if place.device == "cuda" else "gloo",
        init_method="env://",
        rank=place.rank,
        world_size=place.world_size,
        timeout=timedelta(seconds=order.timeout_s),
    )
    yield
    dist.destroy_process_group()
