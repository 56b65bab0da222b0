"""The GPU's checks run whole on a CPU, on tiny sizes: nothing in them is untried but the card."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu.step import _overlap

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_parts_run_on_a_cpu() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--limit", "590", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failed"] == []
    assert found["smoke/state"] <= 1e-4
    assert found["resume/rowwise_adagrad_identical"] == 1
    assert found["bundle/largest_difference"] <= 1e-5
    parts = {name.split("/")[0] for name in found if "/" in name}
    assert parts == {"smoke", "tests", "resume", "examples", "tables", "tops", "step", "bundle"}


def test_the_profile_tells_copies_beside_kernels_from_others() -> None:
    def event(name: str, start: float, stop: float) -> SimpleNamespace:
        time_range = SimpleNamespace(start=start, end=stop, elapsed_us=lambda: stop - start)
        return SimpleNamespace(name=name, device_type=torch.autograd.DeviceType.CUDA, time_range=time_range)

    copies = [event("Memcpy HtoD (Pinned -> Device)", 0, 10), event("Memcpy HtoD (Pageable -> Device)", 30, 35)]
    kernels = [event("gemm", 5, 8), event("sort", 7, 20), event("## forward ##", 0, 40)]
    found = _overlap([*copies, *kernels])  # pyright: ignore[reportArgumentType]
    assert list(found.values()) == [pytest.approx(5 / 15), pytest.approx(10 / 15)]
    assert _overlap(kernels) == {}  # pyright: ignore[reportArgumentType]


def test_parts_that_cannot_begin_in_time_have_failed() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "smoke", "--device", "cpu", "--limit", "0", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1]) == {"failed": ["smoke"]}


def test_a_part_that_does_not_exist_is_named() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "smoek"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert "smoek" in done.stderr
    assert "smoke, tests" in done.stderr
