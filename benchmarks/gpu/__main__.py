"""Checks and measures this project on one GPU, in under eight minutes.

    python -m benchmarks.gpu [PART ...] [--device cuda|cpu] [--tiny] [--limit 480] [--json]

Each part runs in a process of its own and prints as soon as it has something to say: what fails or hangs costs the
others nothing, and a cut loses nothing. A part gets what is left of `--limit` seconds at most; one that cannot begin
any more has failed. `--json` ends with one object of all figures; the exit code is 1 if a part failed. `--device cpu
--tiny` runs the same code in about two minutes on a machine without a GPU: it shows that the parts work, its figures
mean nothing.

    smoke      one step of the quickstart on CPU and GPU, equal to 1e-4
    tests      pytest -m gpu
    resume     killed and resumed, bit for bit the undisturbed run
    examples   examples a second of the quickstart, kuairand and MLPerf's DLRM, against published figures
    tables     reads and updates of table rows, as a share of the copy rate
    tops       the batched top against the loop, in FP32, TF32 and BF16, with CUDA graphs and compiled
    step       where a step's time goes: kernels, copies, launches, waits
    bundle     export, load and score on the GPU, against the trainer's own modules
"""

import argparse
import json
import subprocess
import sys
import time

from benchmarks.gpu.apart import run_apart
from trainer.run.versions import installed

PARTS = ("smoke", "tests", "resume", "examples", "tables", "tops", "step", "bundle")
LIMIT_SECONDS = (
    dict.fromkeys(PARTS, 60) | dict.fromkeys(("smoke", "tests", "resume", "tops", "bundle"), 150) | {"examples": 150}
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them if left out")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes for a test of this program")
    parser.add_argument("--limit", type=float, default=480, help="seconds, for all parts together")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    began = time.perf_counter()
    print(heading(arguments.device), flush=True)
    figures, failed = {}, []
    for part in arguments.parts or PARTS:
        print(f"\n== {part}, {time.perf_counter() - began:.0f} s", flush=True)
        seconds = min(LIMIT_SECONDS[part], int(arguments.limit - (time.perf_counter() - began)))
        found = run_apart(f"benchmarks.gpu.{part}", seconds, arguments.device, arguments.tiny) if seconds > 0 else None
        if found is None:
            failed.append(part)
        else:
            figures |= {f"{part}/{name}": value for name, value in found.items()}
            print(json.dumps({name: _short(value) for name, value in found.items()}), flush=True)
    verdict = f"FAILED: {', '.join(failed)}" if failed else "all parts passed"
    print(f"\n{time.perf_counter() - began:.0f} s; {verdict}")
    if arguments.json:
        print(json.dumps({"failed": failed, **figures}))
    sys.exit(1 if failed else 0)


def heading(device: str) -> str:
    """What the figures were taken on."""
    versions = ", ".join(f"{name} {version}" for name, version in installed().items())
    return f"python {sys.version.split()[0]}, {versions}; {_card() if device == 'cuda' else 'on the CPU'}"


def _card() -> str:
    """Asked of the driver: this process has no need to open the card."""
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no answer from nvidia-smi: {error}"


def _short(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
