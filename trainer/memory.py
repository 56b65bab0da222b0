"""Memory in use now: of this process, of the machine or container that would kill it, and of the GPU."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

GIB = 2**30
UNLIMITED = 2**60  # cgroup v1 writes a huge number where there is no limit


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
    host, limit = _container() or _machine()
    memory = Memory(pages * os.sysconf("SC_PAGE_SIZE") / GIB, host / GIB, limit / GIB)
    if torch.device(device).type != "cuda":
        return memory
    free, total = torch.cuda.mem_get_info(device)
    return Memory(memory.rss, memory.host, memory.host_limit, (total - free) / GIB, total / GIB)


def _machine() -> tuple[int, int]:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    total, available = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return total - available, total


def _container() -> tuple[int, int] | None:
    """(in use, limit) of this process's memory cgroup, version 2 or 1; None where it has no limit."""
    for used, limit, cache in (
        ("memory.current", "memory.max", "inactive_file"),
        ("memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes", "total_inactive_file"),
    ):
        root = Path("/sys/fs/cgroup")
        if not (root / limit).exists():
            continue
        text = (root / limit).read_text(encoding="ascii").strip()
        if text == "max" or int(text) > UNLIMITED:
            return None
        stat = (root / used).with_name("memory.stat").read_text(encoding="ascii")
        cached = dict(line.split() for line in stat.splitlines()).get(cache, "0")
        return int((root / used).read_text(encoding="ascii")) - int(cached), int(text)
    return None
