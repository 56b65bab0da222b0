"""What a second worker on a second core brings, beside what the second core itself does.

    python -m benchmarks.two_workers [--config CONFIG] [key=value ...] [--rounds 2] [--json]

The real command, in turns: two workers on two cores, and one worker that is pinned to one core with its reader, Ray and
the driver (`taskset -c 0`). Two processors of a virtual machine are often the two threads of one core. So the same is
done with matrix products alone, one process per processor: no training of two workers can gain more than these do.

`--json` ends with one object: `two_vs_one` and the examples per second behind it (medians of the log lines but the
first), `machine_two_vs_one`, `share_of_machine`, and of the last round `data_wait_share` and CPU seconds per million
examples, of the workers and of everything else, from start to end.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.quickstart import measure, trainer

_PRODUCTS_S = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/criteo_shaped.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    found: dict[str, list[float]] = {"one": [], "two": [], "machine": []}
    last: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = f"data.root={folder}/data"
        trainer("generate", arguments.config, data, *arguments.overrides).wait()
        for number in range(arguments.rounds):
            found["machine"].append(products(cores) / products(cores[:1]))
            for name, workers in (("one", 1), ("two", 2)):
                run = Path(folder) / f"{name}_{number}"
                given = [data, *arguments.overrides, f"training.run_dir={run}", f"launch.workers={workers}"]
                os.sched_setaffinity(0, cores[:workers])  # the command inherits it
                parts = measure(run, arguments.config, *given)
                os.sched_setaffinity(0, cores)
                found[name].append(parts["examples_per_second"])
                last[name] = _costs(run, parts["cpu_s"])
            said = ", ".join(f"{name} {values[-1]:,.2f}" for name, values in found.items())
            print(f"round {number + 1}: {said}", file=sys.stderr)
    one, two, machine = (median(found[name]) for name in ("one", "two", "machine"))
    result = {"two_vs_one": two / one, "machine_two_vs_one": machine, "share_of_machine": two / one / machine}
    result |= {"one": one, "two": two, "costs": last}
    print(json.dumps(result) if arguments.json else result)


def _costs(run: Path, cpu: dict[str, float]) -> dict[str, float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "train"]
    millions = sum(max(value for tag, value in record.items() if tag.startswith("rows/")) for record in steps) / 1e6
    others = sum(seconds for role, seconds in cpu.items() if role != "workers")
    wait = max(record["speed/data_wait_share"] for record in steps[1:])
    return {"data_wait_share": wait, "workers_cpu_s": cpu["workers"] / millions, "others_cpu_s": others / millions}


def products(cores: list[int]) -> float:
    """Products of 512 x 512 matrices per second of one process on each core, together."""
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # read when a process imports NumPy
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(cores)) as pool:
        return sum(pool.map(_multiply, cores, chunksize=1))


def _multiply(core: int) -> float:
    import numpy as np

    os.sched_setaffinity(0, {core})
    matrix, done = np.ones((512, 512), np.float32), 0
    began = time.perf_counter()  # both are ready: a process that still imports would cost the other
    while time.perf_counter() - began < _PRODUCTS_S:
        np.matmul(matrix, matrix)
        done += 1
    return done / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
