"""Functions launched on workers by real Ray, whose processes are killed, stopped, and hang."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.launch import Launched, launch
from configs.errors import RunFailed, UserError
from configs.training_config import LaunchConfig
from tests.cluster import functions


@dataclass(frozen=True)
class Clues:
    folder: Path

    def log_of(self, rank: int) -> str:
        return str(self.folder / f"rank_{rank}.log")

    def progress(self) -> str:
        return ""

    def saved(self) -> str:
        return ""


def launched(
    function: Callable[[Any, Any], Any],
    argument: Any,
    folder: Path,
    workers: int = 2,
    modules: Sequence[str] = ("tests.cluster.functions",),
    **options: Any,
) -> tuple[Any, list[str]]:
    lines: list[str] = []
    config = LaunchConfig(workers=workers, address="local", **options)
    given = Launched(function, argument, {}, str(folder), Clues(folder), modules)
    return launch(given, config, lines.append), lines


def kill_an_agent(asked: Path, number: signal.Signals = signal.SIGKILL) -> None:
    """Once it is asked for: Ray has to start new agents then."""
    while not asked.exists():
        time.sleep(0.1)
    os.kill(next(process for process in _below(os.getpid()) if b"RayTrainWorker" in _command(process)), number)


def _below(process: int) -> Iterator[int]:
    for child in Path(f"/proc/{process}/task").glob("*/children"):
        for number in map(int, child.read_text().split()):
            yield number
            yield from _below(number)


def _command(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def test_three_ranks_meet_and_know_their_place(tmp_path: Path) -> None:
    result, _ = launched(functions.of_place, {"x": 1}, tmp_path, workers=3)
    assert result["sum"] == 6
    assert result["argument"] == {"x": 1}
    assert result["environment"] == {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3"}
    with pytest.raises(ProcessLookupError):
        os.kill(result["pid"], 0)


@pytest.mark.slow
def test_whatever_ends_a_process_the_others_begin_again_with_it(tmp_path: Path) -> None:
    killing = threading.Thread(target=kill_an_agent, args=(tmp_path / "kill an agent",))
    killing.start()
    faults, lines = launched(
        functions.survivor, str(tmp_path), tmp_path, workers=3, hang_timeout_s=10, max_failures=5, timeout_s=60
    )
    killing.join()
    assert [(rank, step) for rank, step, _ in faults[:4]] == [(1, 3), (0, 3), (2, 3), (1, 3)]
    assert faults[4][1] == 3
    causes = [cause for *_, cause in faults]
    assert causes[0].startswith("its process was ended by signal 9 (SIGKILL)")
    assert causes[1] == "ValueError: a fault in the code"
    assert causes[2].startswith("its process was stopped (SIGSTOP) for ")
    assert causes[3].startswith("no step for too long: it is in survivor, ")
    assert "its process was killed, or crashed" in causes[4]
    failed = [line for line in lines if " failed" in line]
    assert len(failed) == 5, "a rank that lost its peers is no cause"
    assert all(str(tmp_path / f"rank_{rank}.log") in line for line, (rank, *_) in zip(failed, faults, strict=True))
    assert [line for line in lines if line.startswith("failure ")] == [
        f"failure {n} of 5 since the last save: going on from there" for n in range(1, 6)
    ]
    stacks = [(tmp_path / f"rank_{rank}.log").read_text() for rank in range(3)]
    assert all("what the threads are doing" in text and "functions.py" in text for text in stacks)


def test_what_fails_again_and_again_ends_with_its_first_cause(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"(?s)more failures .* than launch.max_failures=1, the first:\nrank 1 .*") as e:
        launched(functions.failing, None, tmp_path, max_failures=1)
    assert "ValueError: fault 1 (" in str(e.value)


@pytest.mark.slow
def test_a_mistake_of_the_user_s_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        launched(functions.mistaken, None, tmp_path)
    assert str(error.value) == "column x is missing\nname another"


@pytest.mark.slow
def test_a_signal_to_the_driver_asks_the_function_to_stop(tmp_path: Path) -> None:
    lines: list[str] = []
    given = Launched(functions.stopped_by_word, None, {}, str(tmp_path), Clues(tmp_path), ["tests.cluster.functions"])

    def show(line: str) -> None:
        lines.append(line)
        if line == "count 3":
            os.kill(os.getpid(), signal.SIGTERM)

    assert launch(given, LaunchConfig(workers=1, address="local"), show) >= 3
    assert any(line.startswith("stopping") for line in lines)


@pytest.mark.slow
def test_a_process_that_is_stopped_for_a_moment_is_not_lost(tmp_path: Path) -> None:
    def pause() -> None:
        while not (path := tmp_path / "pid_1").exists() or not path.read_text():
            time.sleep(0.1)
        process = int(path.read_text())
        os.kill(process, signal.SIGSTOP)
        time.sleep(3)
        os.kill(process, signal.SIGCONT)

    thread = threading.Thread(target=pause)
    thread.start()
    faults, lines = launched(functions.resting, str(tmp_path), tmp_path)
    thread.join()
    assert faults == 0
    assert lines == []


@pytest.mark.slow
def test_a_standby_whose_imports_opened_a_gpu_calls_the_function_itself(tmp_path: Path) -> None:
    modules = ["tests.cluster.functions", "tests.cluster.gpu_opened"]
    faults, _ = launched(functions.killed_twice, None, tmp_path, modules=modules)
    assert [rank for rank, *_ in faults] == [1, 1]


@pytest.mark.slow
def test_an_agent_that_is_told_to_end_has_the_function_save_first(tmp_path: Path) -> None:
    telling = threading.Thread(target=kill_an_agent, args=(tmp_path / "kill an agent", signal.SIGTERM))
    telling.start()
    result, lines = launched(functions.leaving, str(tmp_path), tmp_path)
    telling.join()
    assert result == ("went on", 0)
    (line,) = lines
    assert line.endswith("is told to end: the workers save, and go on elsewhere")
