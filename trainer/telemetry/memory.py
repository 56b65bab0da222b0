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


def _container(root: Path = Path("/sys/fs/cgroup"), mine: Path = Path("/proc/self/cgroup")) -> tuple[int, int] | None:
    """(in use, limit) of the nearest memory cgroup above this process that has a limit, version 2 or 1; or None."""
    for line in mine.read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            top, names = root / "memory", ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
        elif controllers == "":
            top, names = root, ("memory.current", "memory.max", "inactive_file")
        else:
            continue
        own = top / path.lstrip("/")  # does not exist where a container sees its own cgroup as the root
        for folder in [own, *own.parents]:
            if folder.is_relative_to(top) and (found := _limited(folder, *names)):
                return found
    return None


def _limited(folder: Path, used: str, limit: str, cache: str) -> tuple[int, int] | None:
    if not (folder / limit).exists():
        return None
    text = (folder / limit).read_text(encoding="ascii").strip()
    if text == "max" or int(text) > UNLIMITED:
        return None
    stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    return int((folder / used).read_text(encoding="ascii")) - int(stat.get(cache, "0")), int(text)
