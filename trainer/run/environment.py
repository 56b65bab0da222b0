"""What a run was started with, for the record: versions, host, code, command. Imports nothing heavy."""

import getpass
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from trainer.run.versions import installed

PACKAGES = ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "ray", "pyarrow", "numpy", "tensorboard", "pydantic")


def environment() -> dict[str, Any]:
    """JSON values; what cannot be found out is None."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [Path(sys.executable).name, *sys.orig_argv[1:]],
        "folder": os.getcwd(),
        "host": socket.gethostname(),
        "user": _user(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": installed(PACKAGES),
        "git": _git(Path(__file__).resolve().parent),
        "cpu": {"model": _cpu_model(), "cores": os.cpu_count(), "usable": len(os.sched_getaffinity(0))},
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": _lines("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"),
    }


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    """The commit of the code, and whether it was changed since; None for an installed copy."""
    commit = _lines("git", "-C", str(folder), "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _lines("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit[0], "changed": bool(changed)}


def _cpu_model() -> str | None:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or None


def _lines(*command: str) -> list[str] | None:
    """What a command prints; None when it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else None
