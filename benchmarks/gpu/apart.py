"""Runs a part in a process of its own: `python -m benchmarks.gpu.apart MODULE DEVICE TINY FILE`.

Not forked: importing torchrec on a machine with a GPU opens it, and an open GPU does not survive a fork.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def run_apart(module: str, limit_seconds: float, device: str, tiny: bool) -> dict[str, float] | None:
    """The figures that `module.run(device, tiny)` returned; None where it failed, which is then on the screen.

    A part that takes longer than its limit is killed, with all that it started.
    """
    with tempfile.TemporaryDirectory(prefix="multigate_") as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks.gpu.apart", module, device, str(int(tiny)), str(found)]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            print(f"{module} is killed: it ran over {limit_seconds} s", flush=True)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
        return json.loads(found.read_text()) if found.exists() else None


def main() -> None:
    module, device, tiny, found = sys.argv[1:]
    figures = importlib.import_module(module).run(device, tiny=bool(int(tiny)))
    Path(found).write_text(json.dumps(figures))
    sys.stdout.flush()
    os._exit(0)  # some threads of fbgemm and NCCL abort a normal exit


if __name__ == "__main__":
    main()
