"""Memory of the machine, or of the container that would kill this process first: in use, and the limit. Linux only.

The planner asks how much tables may fill, telemetry how much is in use.
"""

from pathlib import Path

_UNLIMITED = 2**60  # cgroup v1 writes a huge number where there is no limit


def host_memory() -> tuple[int, int]:
    """(in use, limit) in bytes. Page cache does not count as in use."""
    return _container() or _machine()


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
    if text == "max" or int(text) > _UNLIMITED:
        return None
    stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    return int((folder / used).read_text(encoding="ascii")) - int(stat.get(cache, "0")), int(text)
