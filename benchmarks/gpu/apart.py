"""Runs a part in a process of its own, forked from one that has imported torch, torchrec and the trainer.

That process has no CUDA context, so its children may each have one.
"""

import importlib
import multiprocessing
import os
import sys
import traceback
from multiprocessing.connection import Connection

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["trainer.train", "torchrec", "benchmarks.top", "benchmarks.gpu.apart"])


def run_apart(module: str, limit_seconds: float, device: str, tiny: bool) -> dict[str, float] | None:
    """The figures that `module.run(device, tiny)` returned; None where it failed, which is then on the screen.

    A part that takes longer than its limit is killed.
    """
    ours, theirs = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(target=_run, args=(module, device, tiny, theirs))
    process.start()
    theirs.close()
    process.join(limit_seconds)
    if process.is_alive():
        print(f"{module} is killed: it ran over {limit_seconds} s", flush=True)
        process.kill()
    try:
        return ours.recv() if ours.poll() else None
    except EOFError:
        return None


def _run(module: str, device: str, tiny: bool, to: Connection) -> None:
    try:
        to.send(importlib.import_module(module).run(device, tiny))
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    sys.stdout.flush()
    to.close()
    os._exit(0)  # some threads of fbgemm and NCCL abort a normal exit
