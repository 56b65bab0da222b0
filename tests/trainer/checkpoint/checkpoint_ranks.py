"""Runs a function on several gloo ranks, each a process of its own, with a state to save that depends on its step.

Processes are forked from a server that has imported torch already, so that starting them is quick.
"""

import ctypes
import itertools
import json
import os
import resource
import signal
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from configs.errors import UserError
from configs.schema import CheckpointConfig
from tests.fork_server import fork_server
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.outcome import CheckpointError

ROWS, WIDTH = 1003, 16
_context = fork_server("torch.distributed.tensor", "trainer.checkpoint.checkpointer")


def full(step, rows=ROWS):
    """What the tensors hold at a step, whole."""
    table = torch.arange(rows * WIDTH, dtype=torch.float32).reshape(rows, WIDTH) + step * 0.5
    return {
        "model/table": table,
        "model/half": (table / 64).half(),
        "model/dense": torch.full((7, 3), float(step)),
        "optim/table/sum": table[:, 0] * 2,
        "optim/dense/step": torch.tensor(float(step)),
    }


def state(step, rows=ROWS):
    """The same on ranks: tables cut by rows and by columns, the rest on every rank."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    cuts = {"model/table": Shard(0), "model/half": Shard(1), "optim/table/sum": Shard(0)}
    tensors = {}
    for name, value in full(step, rows).items():
        if name in cuts:
            whole = DTensor.from_local(value, mesh, [Replicate()], run_check=False)
            value = whole.redistribute(mesh, [cuts[name]])
        tensors[name] = value
    if dist.get_rank() == min(1, dist.get_world_size() - 1):  # as the optimizer state of a table on one rank
        tensors["optim/alone/sum"] = torch.full((5,), float(step))
    return {**tensors, "extra/seen": {"rows": step * 10, "files": ["a", "b"]}}


def differences(loaded, step, rows=ROWS):
    """Names whose values are not those of the step."""
    wrong = [] if loaded["extra/seen"] == {"rows": step * 10, "files": ["a", "b"]} else ["extra/seen"]
    if "optim/alone/sum" in loaded and not loaded["optim/alone/sum"].eq(step).all():
        wrong.append("optim/alone/sum")
    for name, value in full(step, rows).items():
        found = loaded[name].full_tensor() if isinstance(loaded[name], DTensor) else loaded[name]
        if not torch.equal(found, value):
            wrong.append(name)
    return wrong


def save_steps(folder, steps, keep=3):
    checkpointer = Checkpointer(folder, CheckpointConfig(keep=keep), {"config": "abc"})
    for step in steps:
        checkpointer.save(state(step), step=step, epoch=step // 2, epoch_step=step % 2)
    checkpointer.wait()


def load_newest(folder):
    """(step, names that are wrong)."""
    checkpointer = Checkpointer(folder, CheckpointConfig(), {})
    target = state(-1)
    position = checkpointer.load(target)
    return [position.step, differences(target, position.step)]


def save_for_ever(folder, rows):
    """Goes on from the newest checkpoint, and saves every step in the background."""
    checkpointer = Checkpointer(folder, CheckpointConfig(keep=2), {})
    target = state(-1, rows)
    position = checkpointer.load(target)
    first = position.step + 1 if position else 1
    assert not position or not differences(target, position.step, rows)
    for step in itertools.count(first):
        checkpointer.save(state(step, rows), step=step, epoch=0, epoch_step=step)


def save_beyond_a_limit(folder):
    """Rank 1 cannot write large files; returns what each rank is told, and what it can do afterwards."""
    checkpointer = Checkpointer(folder, CheckpointConfig(), {})
    checkpointer.save(state(1), step=1, epoch=0, epoch_step=1, blocking=True)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if dist.get_rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    checkpointer.save(state(2), step=2, epoch=0, epoch_step=2)
    try:
        checkpointer.wait(must_succeed=True)
        told = None
    except CheckpointError as error:
        told = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    after_failure = checkpointer.newest_complete().step
    checkpointer.save(state(3), step=3, epoch=0, epoch_step=3, blocking=True)
    return [told, after_failure, checkpointer.newest_complete().step]


def load_what_does_not_fit(folder):
    """Rank 1 has another table and lacks its own state; what each rank is told."""
    target = state(-1)
    if dist.get_rank() == 1:
        target["model/dense"] = torch.zeros(8, 3)
        del target["optim/alone/sum"]
    try:
        Checkpointer(folder, CheckpointConfig(), {}).load(target)
    except UserError as error:
        return str(error)


def lose_a_rank(folder):
    """Rank 1 dies while rank 0 has a save in flight; the seconds until rank 0 is told, and what."""
    checkpointer = Checkpointer(folder, CheckpointConfig(), {})
    checkpointer.save(state(1), step=1, epoch=0, epoch_step=1, blocking=True)
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    started = time.monotonic()
    try:
        checkpointer.save(state_alone(), step=2, epoch=0, epoch_step=2)
        checkpointer.wait()
    except CheckpointError as error:
        Path(folder, "told").write_text(json.dumps([time.monotonic() - started, str(error)]))
    os._exit(0)  # there is nobody left to meet at the barrier


def state_alone():
    return {"model/dense": torch.ones(7, 3)}


def on_hosts_that_share_nothing(folder):
    """Rank 1 has an empty file system in place of the folder; what each rank is told when loading, then when saving."""
    if dist.get_rank() == 1:
        mount_empty(folder)
    checkpointer = Checkpointer(folder, CheckpointConfig(), {})
    told = []
    for attempt in (
        lambda: checkpointer.load(state(-1)),
        lambda: checkpointer.save(state(9), step=9, epoch=0, epoch_step=9, blocking=True),
    ):
        try:
            attempt()
        except (UserError, CheckpointError) as error:
            told.append(str(error))
    return told


def mount_empty(folder):
    """In a mount namespace of this process alone; PermissionError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private = 0x00020000, 0x4000 | 1 << 18
    for failed in (
        libc.unshare(new_namespace),
        libc.mount(None, b"/", None, private, None),
        libc.mount(b"none", str(folder).encode(), b"tmpfs", 0, None),
    ):
        if failed:
            raise PermissionError(ctypes.get_errno(), "no mount namespace")


def start(world, function, *arguments):
    """The processes, and the folder where each leaves what the function returned."""
    results = Path(tempfile.mkdtemp())
    processes = [
        _context.Process(target=_rank, args=(rank, world, results, function, arguments), daemon=True)
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    return processes, results


def run(world, function, *arguments):
    """What `function(*arguments)` returns on every rank."""
    processes, results = start(world, function, *arguments)
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0] * world
    return [json.loads((results / f"{rank}.json").read_text()) for rank in range(world)]


def _rank(rank, world, results, function, arguments):
    torch.set_num_threads(1)
    store = dist.FileStore(str(results / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    (results / f"{rank}.json").write_text(json.dumps(function(*arguments)))
    dist.barrier()
    dist.destroy_process_group()
