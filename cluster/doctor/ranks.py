"""Processes that form a group as training does, and measure what goes through it. Sent to nodes by value."""

import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import ray

_REPEATS = 3


@ray.remote(num_cpus=0, max_restarts=0)
class Rank:
    """One process of the group."""

    def prepare(self) -> int:
        """Imports torch; a port that is free here."""
        import torch.distributed as dist

        assert dist.is_available()
        with socket.create_server(("", 0)) as probe:
            return probe.getsockname()[1]

    def measure(
        self, rank: int, world_size: int, backend: str, store: str, mib: int, timeout_s: float
    ) -> dict[str, Any]:
        """Joins the group; GB/s of a buffer of `mib`, in all_reduce and in all_to_all.

        store: of rank 0, "tcp://HOST:PORT".
        """
        import torch
        import torch.distributed as dist

        device = torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu")
        timeout = timedelta(seconds=timeout_s)
        dist.init_process_group(backend, store, timeout, rank=rank, world_size=world_size)
        numbers = max(mib * 2**18 // world_size, 1) * world_size
        buffer, other = torch.ones(numbers, device=device), torch.empty(numbers, device=device)
        measured = {
            "all_reduce_gb_s": _speed(lambda: dist.all_reduce(buffer, dist.ReduceOp.MAX), buffer),
            "all_to_all_gb_s": _speed(lambda: dist.all_to_all_single(other, buffer), buffer),
        }
        dist.barrier()
        dist.destroy_process_group()
        return measured


def _speed(collective: Callable[[], Any], buffer: Any) -> float:
    """GB/s of the buffer, the first time left out."""
    import torch
    import torch.distributed as dist

    collective()
    dist.barrier()
    if buffer.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(_REPEATS):
        collective()
    if buffer.is_cuda:
        torch.cuda.synchronize()
    return round(buffer.numel() * buffer.element_size() * _REPEATS / (time.perf_counter() - began) / 1e9, 3)
