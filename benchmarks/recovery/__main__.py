"""How long a run stands still when something dies, and where the seconds go.

    python -m benchmarks.recovery [FAULT ...] [--tries 3] [--limit 120] [--json]

    worker_killed   SIGKILL for one of two workers on this machine
    rank_stopped    SIGSTOP for one of them: it lives and does not answer
    host_lost       all processes of one of two hosts are killed; the run goes on with one worker
    host_joined     that host comes back, and has told Ray so; the run goes on with two
    link_cut        no packet reaches one of two hosts any more, and no connection is closed

Hosts are network namespaces of this machine, each with its own Ray (tests/cluster/hosts.py); without the right to
make them (root) their faults are left out. The run is the quickstart with a link every half second. A figure is the
time from the fault until a step is trained that had not been trained before, the median of all tries. Its parts:

    found       until the driver says that something happened
    ray         until the processes of the new workers are started
    process     their start, imports, and the connections between them
    plan        model, plan, sharded tables
    load        the newest state is loaded
    first       readers, and the first step
    repeat      steps since the newest state are trained again

`still` is the time without new steps, which for a host that joins is shorter. `--json` ends with one object: the
medians as `<fault>_s`, the extremes, the parts of the median's try; null where no new step came within the limit, or
the measuring itself failed, which exit code 1 says too.
"""

import argparse
import json
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.recovery.fault import PARTS, Recovery
from benchmarks.recovery.runs import run_alone, run_on_hosts
from tests.cluster.namespaces import why_not

GOALS = {"worker_killed": 8, "rank_stopped": 45, "host_lost": 20, "host_joined": 30, "link_cut": 45}
FOUND_GOALS = {"rank_stopped": 10}
STILL_GOALS = {"host_joined": 10}
ON_HOSTS = ("host_lost", "host_joined", "link_cut")
Tries = dict[str, list[Recovery | None]]


def main() -> None:
    arguments = _arguments()
    wanted = arguments.faults or list(GOALS)
    reason = why_not()
    if reason and any(fault in ON_HOSTS for fault in wanted):
        print(f"left out: {', '.join(ON_HOSTS)}: {reason}", file=sys.stderr)
        wanted = [fault for fault in wanted if fault not in ON_HOSTS]
    tries: Tries = {fault: [] for fault in wanted}
    with tempfile.TemporaryDirectory(prefix="recovery-") as name:
        folder = Path(arguments.folder or name).resolve()
        failed = [_fails(part, folder, tries, arguments) for part in (_on_this_machine, _on_hosts)]
    for line in table(tries, arguments.limit):
        print(line, file=sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        print(json.dumps(figures(tries)))
    sys.exit(1 if any(failed) else 0)


def _fails(part: Callable[..., None], folder: Path, tries: Tries, arguments: argparse.Namespace) -> bool:
    """Whether it fails: what was measured before, and the other part, are worth telling."""
    try:
        part(folder, tries, arguments)
    except Exception:
        traceback.print_exc()
        return True
    return False


def _on_this_machine(folder: Path, tries: Tries, arguments: argparse.Namespace) -> None:
    for fault, number in (("worker_killed", signal.SIGKILL), ("rank_stopped", signal.SIGSTOP)):
        if fault not in tries:
            continue
        (folder / fault).mkdir(parents=True)
        with run_alone(folder / fault, arguments.limit) as run:
            for attempt in range(arguments.tries):
                rank = (attempt + 1) % 2
                found = run.measure(lambda rank=rank, number=number: run.signal_rank(rank, number))
                _keep(tries, fault, found)
                if found is None:
                    run.signal_rank(rank, signal.SIGKILL)
                    break


def _on_hosts(folder: Path, tries: Tries, arguments: argparse.Namespace) -> None:
    if not any(fault in ON_HOSTS for fault in tries):
        return
    (folder / "hosts").mkdir(parents=True)
    with run_on_hosts(folder / "hosts", arguments.limit) as (run, cluster):
        going = [fault for fault in ("host_lost", "link_cut") if fault in tries] or ["host_lost"]
        left = going * arguments.tries
        for number, fault in enumerate(left, 1):
            host = cluster[1]
            lost = run.measure(host.kill if fault == "host_lost" else lambda host=host: cluster.cut(host))
            _keep(tries, fault, lost)
            if lost is None or (number == len(left) and "host_joined" not in tries):
                return
            host.kill()
            cluster.mend(host)
            joined = run.measure_after(lambda host=host: cluster.boot(host))
            _keep(tries, "host_joined", joined)
            if joined is None:
                return


def _keep(tries: Tries, fault: str, found: Recovery | None) -> None:
    if fault in tries:
        tries[fault].append(found)
        print(f"{fault}: {_line(found)}", file=sys.stderr, flush=True)


def _line(found: Recovery | None) -> str:
    if found is None:
        return "no new step within the limit"
    parts = "  ".join(f"{part} {seconds:.1f}" for part, seconds in found.parts.items())
    return f"{found.again:.1f} s  {parts}  still {found.still:.1f}\n  " + "\n  ".join(line[:200] for line in found.said)


def table(tries: Tries, limit_s: float) -> Sequence[str]:
    """A line per fault."""
    lines = [
        f"{'seconds':14}{'median':>8}{'range':>14}{'goal':>6}" + "".join(f"{part:>9}" for part in (*PARTS, "still"))
    ]
    for fault, found in tries.items():
        median = median_try(found)
        if median is None:
            lines.append(f"{fault:14}{f'> {limit_s:g}' if found else '-':>8}{'':14}{GOALS[fault]:>6}")
            continue
        whole = [each.again for each in found if each]
        spread = f"{min(whole):.1f} - {max(whole):.1f}"
        parts = "".join(f"{seconds:9.1f}" for seconds in (*median.parts.values(), median.still))
        lines.append(f"{fault:14}{median.again:8.1f}{spread:>14}{GOALS[fault]:>6}{parts}")
    goals = [f"{fault} found {goal}" for fault, goal in FOUND_GOALS.items()]
    goals += [f"{fault} still {goal}" for fault, goal in STILL_GOALS.items()]
    return [*lines, f"goals of parts: {', '.join(goals)}"]


def figures(tries: Tries) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for fault, found in tries.items():
        median = median_try(found)
        values[f"{fault}_s"] = median and round(median.again, 2)
        if median:
            whole = [each.again for each in found if each]
            values[f"{fault}_smallest_s"], values[f"{fault}_largest_s"] = round(min(whole), 2), round(max(whole), 2)
            values[f"{fault}_still_s"] = round(median.still, 2)
            values[f"{fault}_parts"] = {part: round(seconds, 2) for part, seconds in median.parts.items()}
            values[f"{fault}_goal_s"] = GOALS[fault]
    return values


def median_try(found: Sequence[Recovery | None]) -> Recovery | None:
    """The try with the median time; None if one did not come back, or there was none."""
    whole = sorted((each for each in found if each), key=lambda each: each.again)
    return whole[(len(whole) - 1) // 2] if whole and len(whole) == len(found) else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(GOALS)}; all if left out")
    parser.add_argument("--tries", type=int, default=3, help="of each fault")
    parser.add_argument("--limit", type=float, default=120, help="seconds that a run may take to come back")
    parser.add_argument("--folder", help="keeps the runs, and what their screens showed")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    if unknown := set(arguments.faults) - set(GOALS):
        parser.error(f"no fault is called {', '.join(sorted(unknown))}; there are {', '.join(GOALS)}")
    return arguments


if __name__ == "__main__":
    main()
