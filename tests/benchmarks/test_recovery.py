"""What the benchmark of recovery says of a run, from files as a run writes them."""

import json
import time
from datetime import datetime
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.recovery.__main__ import figures, table
from benchmarks.recovery.fault import PARTS, Recovery, recovery
from benchmarks.recovery.watch import Watch

LATE = 2.0  # seconds, on a busy machine


def step(run: Path, number: int) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": number, "time": round(time.time(), 3)}) + "\n")


def attempt(run: Path, number: int) -> None:
    folder = run / f"logs/attempt_{number}"
    folder.mkdir(parents=True)
    stamp = f"{datetime.now():%Y-%m-%d %H:%M:%S},{datetime.now().microsecond // 1000:03} INFO trainer.session: "
    (folder / "rank_0.log").write_text(f"{stamp}the model is built, its tables are sharded\n{stamp}step 2 is loaded\n")


def test_a_fault_lasts_until_a_step_is_new(tmp_path: Path) -> None:
    """A step after the fault may be one of the old workers, and steps since the newest link are trained twice."""
    run, screen = tmp_path / "run", tmp_path / "screen"
    screen.write_text("")
    attempt(run, 1)
    step(run, 3)
    watch = Watch(run, screen)
    time.sleep(0.1)

    def goes_on() -> None:
        step(run, 4)
        time.sleep(0.3)
        screen.write_text("step 4/9  loss 1\nrank 1 failed\n")
        time.sleep(0.1)
        attempt(run, 2)
        for number in (3, 4, 5):
            time.sleep(0.3)
            step(run, number)

    def fault() -> float:
        Thread(target=goes_on).start()
        return time.time()

    found = recovery(watch, fault, lambda _: [0.0], limit_s=5)
    watch.close()
    assert found
    assert 1.25 < found.again < 1.3 + LATE
    assert found.said == ["rank 1 failed"]
    assert tuple(found.parts) == PARTS
    assert 0.25 < found.parts["found"] < 0.3 + LATE
    assert 0.55 < found.parts["repeat"] < 0.6 + LATE
    assert sum(found.parts.values()) == pytest.approx(found.again)


def test_a_run_that_does_not_come_back_has_no_figure(tmp_path: Path) -> None:
    (tmp_path / "screen").write_text("")
    watch = Watch(tmp_path, tmp_path / "screen")
    assert recovery(watch, time.time, lambda _: [0.0], limit_s=0.1) is None
    watch.close()


def test_the_figures_are_those_of_the_median_try() -> None:
    tries = [Recovery(again, again, dict.fromkeys(PARTS, again / len(PARTS)), []) for again in (7.0, 3.0, 4.0)]
    found = figures({"worker_killed": list(tries), "host_lost": [tries[0], None]})
    assert found["worker_killed_s"] == 4
    assert (found["worker_killed_smallest_s"], found["worker_killed_largest_s"]) == (3, 7)
    assert sum(found["worker_killed_parts"].values()) == pytest.approx(4, abs=0.05)
    assert found["host_lost_s"] is None
    assert "> 60" in "\n".join(table({"host_lost": [None]}, 60))
