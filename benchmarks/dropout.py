"""Dropout from row keys against torch's own, on columns [C, B] in place, as the experts' stacks apply it.

    python -m benchmarks.dropout [--seconds 2] [--json]

One thread, by the thread's own time, so that a busy machine disturbs it little; the two take turns and the fastest
turn of each counts. `--json` ends with one object: the speed-up over `torch.dropout_` for each shape.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch

from benchmarks.top import keep_freed_memory
from models.draws import Dropout, share_row_keys

SHARE = 0.2
SHAPES = {"reference": (256, 128), "middle": (4096, 4096), "large": (8192, 4096)}  # experts' hidden values, rows


def fastest(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Seconds of the fastest call of each; ten turns at least."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(times[next(iter(calls))]) < 10:
        for name, call in calls.items():
            start = time.thread_time()
            call()
            times[name].append(time.thread_time() - start)
    return {name: min(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring for each shape")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    speedups = {}
    for name, (columns, rows) in SHAPES.items():
        dropout, x = Dropout(SHARE), torch.randn(columns, rows)
        share_row_keys(dropout).tensor = torch.randint(-(2**63), 2**63 - 1, (rows,))
        calls = {
            "torch": lambda x=x: torch.dropout_(x, SHARE, True),
            "row keys": lambda x=x, dropout=dropout: x.mul_(dropout.kept(x)).mul_(dropout.scale),
        }
        times = fastest(calls, arguments.seconds)
        speedups[name] = round(times["torch"] / times["row keys"], 2)
        shown = "  ".join(f"{call} {seconds * 1e9 / x.numel():.2f} ns" for call, seconds in times.items())
        print(f"{name:<10} {columns:>5} x {rows:<5} {shown} a value  {speedups[name]}x")
    if arguments.json:
        print(json.dumps(speedups))


if __name__ == "__main__":
    main()
