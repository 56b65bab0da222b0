"""The project's own tests that need a GPU, in this process."""

from pathlib import Path

import pytest

from benchmarks.gpu.worker import CONFIGS


def run(device: str, tiny: bool) -> dict[str, float]:
    """How many passed. Raises AssertionError if one failed; on a CPU they are skipped, with the reason."""
    counts = _Counts()
    root = CONFIGS.parent
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--rootdir", str(root)]
    code = pytest.main([*options, *files_with_gpu_tests(root / "tests")], [counts])
    assert code == 0, f"pytest ended with {code!r}"
    return {outcome: float(number) for outcome, number in counts.by_outcome.items()}


def files_with_gpu_tests(folder: Path) -> list[str]:
    """Those alone: a machine that is lent for its GPU may lack what other tests import."""
    return sorted(str(file) for file in folder.rglob("test_*.py") if "pytest.mark.gpu" in file.read_text())


class _Counts:
    """A plugin of pytest that counts outcomes."""

    def __init__(self) -> None:
        self.by_outcome = {"passed": 0, "skipped": 0, "failed": 0}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome == "skipped":
            self.by_outcome[report.outcome] += 1
