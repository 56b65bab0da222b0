"""Where the seconds of the README's first command go, from its start to its end.

    python -m benchmarks.quickstart [--config CONFIG] [key=value ...] [--runs 3] [--json]

Calls `python -m trainer train configs/quickstart.yaml` in a folder of its own, with the data already generated, and
reads times that the command leaves behind: lines on its screen, files of the run, `time` in metrics.jsonl.

    config     Python starts, the command line is imported, the config is read; the run directory is locked
    prepare    the data is looked at, the run directory is written
    ray        Ray's processes start; the driver imports Ray Train
    workers    processes of the workers, their imports, the process group
    build      model, plan, tables, readers, TensorBoard
    first      what the first log line took beyond a usual one: the first batch, first calls of everything
    training   steps, at the pace of the usual log line
    evaluation of the validation part, after each epoch
    end        from the last evaluation until the command has returned

`--json` ends with one object: the median of `total_s`, `<part>_s` of the run of that total, `cpu_s`: CPU seconds of
the driver, the workers (what trains), their agents and Ray's other processes, and `examples_per_second` of the median
log line.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from trainer.run.lock import LOCK
from trainer.run.run_directory import RunDirectory

_PR_SET_CHILD_SUBREAPER = 36
_SAMPLE_S = 0.5  # of CPU times; what a process did after its last sample is not seen


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = f"data.root={folder / 'data'}"
        trainer("generate", arguments.config, data).wait()
        runs = []
        for number in range(arguments.runs):
            run = folder / f"run_{number}"
            runs.append(measure(run, arguments.config, data, f"training.run_dir={run}", *arguments.overrides))
            print(f"run {number + 1}: {_line(runs[-1])}", file=sys.stderr)
    runs.sort(key=lambda run: run["total_s"])
    found = runs[len(runs) // 2]
    for part, value in found.items():
        print(f"{part:24} {value if isinstance(value, dict) else format(value, '10,.2f')}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(found))


def measure(folder: Path, *arguments: str) -> dict[str, Any]:
    """The parts of one call of `train` into `folder`."""
    began = time.time()
    process = trainer("train", *arguments)
    cpu: dict[int, tuple[str, float]] = {}
    watch = threading.Thread(target=_watch_cpu, args=(process, cpu), daemon=True)
    watch.start()
    ready = 0.0  # the page before the first step was said
    assert process.stderr is not None
    said: deque[str] = deque(maxlen=5)
    for line in process.stderr:
        said.append(line)
        if line.startswith("run  "):
            ready = time.time()
    if process.wait():
        sys.exit(f"the command failed: {process.args}\n{''.join(said)}")
    ended = time.time()
    watch.join()
    parts = _parts(RunDirectory(folder), began, ready, ended)
    by_role: defaultdict[str, float] = defaultdict(float)
    for role, seconds in cpu.values():
        by_role[role] += seconds
    return parts | {"cpu_s": {role: round(seconds, 2) for role, seconds in by_role.items()}}


def _parts(run: RunDirectory, began: float, ready: float, ended: float) -> dict[str, Any]:
    groups = run.logs / "ray"
    marks = {
        "config_s": _created(run.path / LOCK),
        "prepare_s": _written(run.manifest),
        "ray_s": min(_written(group) for group in groups.iterdir()),
        "workers_s": _written(run.logs / "attempt_1"),
        "build_s": ready,
    }
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "train"]
    evaluations = [record for record in records if record["kind"] == "eval"]
    seconds = [record["speed/step_ms"] * done / 1e3 for record, done in _with_steps(steps)]
    usual = median(record["speed/step_ms"] for record in steps[1:]) / 1e3
    first = max(seconds[0] - steps[0]["step"] * usual, 0.0)
    last = records[-1]["time"]
    parts, before = {}, began
    for name, at in marks.items():
        parts[name], before = at - before, at
    parts["first_s"] = first
    parts["training_s"] = sum(seconds) - first
    parts["evaluation_s"] = last - ready - sum(seconds)
    parts["end_s"] = ended - last
    rate = median(record["speed/examples_per_second"] for record in steps[1:])
    return {"total_s": ended - began, **parts, "examples_per_second": rate, "evaluations": len(evaluations)}


def _with_steps(records: list[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """Each record, and the steps since the one before."""
    before = [0, *(record["step"] for record in records)]
    return [(record, record["step"] - step) for record, step in zip(records, before, strict=False)]


def _created(path: Path) -> float:
    """For files that are written again and again. Python 3.11 does not tell."""
    return float(subprocess.check_output(["stat", "--format=%.9W", path]))


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _watch_cpu(driver: "subprocess.Popen[str]", cpu: dict[int, tuple[str, float]]) -> None:
    """Role and CPU seconds of the driver and all that it started, as of when each process was seen last.

    Processes that train are nobody's children (`cluster.standby`): they become ours.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    while driver.returncode is None:
        for process, seconds in _descendants(os.getpid()).items():
            with suppress(OSError):
                command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if not command:  # it has ended, and keeps the role that it had
                    continue
                cpu[process] = "driver" if process == driver.pid else _role(command), seconds
        time.sleep(_SAMPLE_S)


def _descendants(root: int) -> dict[int, float]:
    """Process -> its CPU seconds."""
    seconds, children = {}, defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            children[int(fields[1])].append(int(path.parent.name))
            seconds[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    found = [root]
    for process in found:
        found += children[process]
    return {process: seconds[process] for process in found[1:] if process in seconds}


def _role(command: str) -> str:
    known = {
        "cluster.standby": "workers",
        "ray::RayTrainWorker": "agents",
        "gcs_server": "gcs",
        "dashboard/agent": "dashboard agent",
    }
    known |= {"runtime_env": "environment agent", "/raylet": "raylet", "ray::": "other actors"}
    known |= {"default_worker": "idle processes"}
    return next((role for part, role in known.items() if part in command), "others")


def trainer(*arguments: str) -> "subprocess.Popen[str]":
    """The command, begun."""
    command = [sys.executable, "-m", "trainer", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ)


def _line(parts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:,.1f}" for name, value in parts.items() if not isinstance(value, dict))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
