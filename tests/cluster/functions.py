"""Functions that tests launch on workers; they are imported by name in the workers' processes."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cluster.worker import Worker
from configs.errors import UserError


def of_place(argument: Any, worker: Worker) -> Any:
    """What the ranks together know of themselves: a sum over them, and this one's place."""
    total = torch.tensor([float(worker.rank + 1)])
    dist.all_reduce(total)
    environment = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    return {"argument": argument, "sum": total.item(), "pid": os.getpid(), "environment": environment}


def survivor(folder: str, worker: Worker) -> list[tuple[int | None, int | None, str]]:
    """Fails in another way in each attempt, on one rank; returns the faults."""
    attempt = len(worker.faults) + 1
    for step in range(1, 4):
        _all_together()
        worker.beat(step)
    Path(folder, f"rank_{worker.rank}.log").touch()
    match (attempt, worker.rank):
        case (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        case (2, 0):
            raise ValueError("a fault in the code\nand more of it")
        case (3, 2):
            os.kill(os.getpid(), signal.SIGSTOP)
        case (4, 1):
            time.sleep(3600)
        case (5, 2):
            time.sleep(1.5)  # by then it has told the step
            Path(folder, "kill an agent").touch()
            time.sleep(3600)
        case _:
            pass
    _all_together()
    return [(fault.rank, fault.step, fault.cause) for fault in worker.faults]


def killed_twice(_: Any, worker: Worker) -> list[tuple[int | None, str]]:
    if worker.rank == 1 and len(worker.faults) < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    _all_together()
    return [(fault.rank, fault.cause) for fault in worker.faults]


def failing(_: Any, worker: Worker) -> None:
    """Fails at the same place every time, and saves nothing."""
    if worker.rank == 1:
        raise ValueError(f"fault {len(worker.faults) + 1}")
    _all_together()


def mistaken(_: Any, worker: Worker) -> None:
    if worker.rank == 1:
        raise UserError("column x is missing\nname another")
    _all_together()


def stopped_by_word(_: Any, worker: Worker) -> int:
    """Counts until it is told to stop."""
    count = 0
    while not worker.stops():
        count += 1
        worker.say(f"count {count}")
        time.sleep(0.05)
    return count


def leaving(folder: str, worker: Worker) -> tuple[str, int]:
    """Saves and returns when told so; when called again, all is done."""
    saved = Path(folder, f"saved_{worker.rank}")
    if saved.exists():
        return "went on", len(worker.faults)
    Path(folder, "kill an agent").touch()
    while not worker.stops():
        time.sleep(0.05)
    saved.touch()
    return "stopped", 0


def resting(argument: str, worker: Worker) -> int:
    """One rank is stopped for a while by somebody else; nothing is wrong with it."""
    for step in range(80):
        Path(argument, f"pid_{worker.rank}").write_text(str(os.getpid()))
        worker.beat(step)
        _all_together()
        time.sleep(0.1)
    return len(worker.faults)


def _all_together() -> None:
    dist.all_reduce(torch.zeros(1))
