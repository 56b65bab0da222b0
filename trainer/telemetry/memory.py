"""Memory in use now: of this process, of its host, and of the GPU."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from embeddings.planning.host_memory import host_memory

GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """GiB. `used` of `limit` is what runs out first: the GPU's where training is on one, else the host's."""

    rss: float  # resident set of this process
    host: float  # in use on the host, or in the container where that has a limit; page cache is not counted
    host_limit: float
    gpu: float | None = None  # in use on this rank's GPU, by anyone
    gpu_limit: float | None = None

    @property
    def used(self) -> float:
        return self.host if self.gpu is None else self.gpu

    @property
    def limit(self) -> float:
        return self.host_limit if self.gpu_limit is None else self.gpu_limit


def measure(device: torch.device | str = "cpu") -> Memory:
    """What is in use at this moment. Linux only."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    host, limit = host_memory()
    memory = Memory(pages * os.sysconf("SC_PAGE_SIZE") / GIB, host / GIB, limit / GIB)
    if torch.device(device).type != "cuda":
        return memory
    free, total = torch.cuda.mem_get_info(device)
    return Memory(memory.rss, memory.host, memory.host_limit, (total - free) / GIB, total / GIB)
