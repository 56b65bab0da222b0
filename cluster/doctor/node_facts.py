"""What a node says of itself: versions, code, processor, memory, GPUs, limits, environment. JSON values.

It is sent to nodes by value, and imports the standard library alone.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.doctor.interfaces import gloo_choice, interfaces, nccl_choice, text_of

_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "sve", "bf16")
_VARIABLES = (
    *("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_IB_DISABLE"),
    *("RAY_health_check_period_ms", "RAY_health_check_timeout_ms", "RAY_health_check_failure_threshold"),
)


def facts(packages: Sequence[str], code: Sequence[str]) -> dict[str, Any]:
    """
    Args:
        packages: whose versions are asked for.
        code: import packages, whose files are compared by content.
    """
    there = interfaces()
    return {
        "host": socket.gethostname(),
        "time": time.time(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": {name: _version(name) for name in packages},
        "code": {name: _digest(name) for name in code},
        "processor": _processor(),
        "memory_gib": _memory_gib(),
        "shared_memory_gib": _space("/dev/shm")["gib"],
        "temporary": _temporary(),
        "open_files": _open_files(),
        "gpus": _gpus(),
        "interfaces": there,
        "gloo": gloo_choice(there),
        "nccl": nccl_choice(there),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "token": _token(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _digest(name: str) -> dict[str, str] | None:
    """Where a package lies, and a hash of its Python files; None where it is not found."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return {"path": str(folder), "digest": digest.hexdigest()[:12]}


def _processor() -> dict[str, Any]:
    lines = (text_of(Path("/proc/cpuinfo")) or "").splitlines()
    pairs = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    model = next((value for key, value in pairs if key == "model name"), platform.machine())
    flags = next((set(value.split()) for key, value in pairs if key in ("flags", "Features")), set())
    return {
        "model": model,
        "features": [name for name in _FEATURES if name in flags],
        "cores": len(os.sched_getaffinity(0)),
    }


def _memory_gib() -> float:
    """Of the machine, or of the container if that has less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [text_of(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    known = [int(limit) for limit in limits if limit and limit.isdigit()]
    return round(min([whole, *known]) / 2**30, 1)


def _space(folder: str) -> dict[str, float | None]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return {"gib": None, "free_gib": None}
    return {"gib": round(usage.total / 2**30, 2), "free_gib": round(usage.free / 2**30, 2)}


def _temporary() -> dict[str, Any]:
    """Where Ray keeps logs and spilled objects, unless it was started with --temp-dir."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return {"path": folder, **_space(folder)}


def _open_files() -> int:
    """Ray raises the limit of its workers as far as it may: the hard one counts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if hard == resource.RLIM_INFINITY else hard


def _gpus() -> list[dict[str, Any]]:
    if shutil.which("nvidia-smi") is None:
        return []
    ask = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=False)
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [
        {"name": row[0], "memory_gib": round(float(row[1]) / 1024, 1), "driver": row[2]}
        for row in rows
        if len(row) == 3
    ]


def _token() -> dict[str, Any] | None:
    """Where Ray's token lies, and whether others on this machine may read it; None where no file is read."""
    if "RAY_AUTH_TOKEN" in os.environ:
        return None
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return {"path": str(path), "others_read": bool(mode & (stat.S_IRGRP | stat.S_IROTH))}
