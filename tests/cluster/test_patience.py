"""What is slow is not dead: a rank that stood still for seconds, and a machine that has other things to do."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.trainer.commands.test_commands import ROOT, command
from tests.trainer.test_train import QUICKSTART
from tests.trainer.workers import FEW_ROWS, losses

STANDS_STILL_S = 3
LOOPS, LOOP_S = 4, 30
LOOP = f"import time\nend = time.time() + {LOOP_S}\nwhile time.time() < end: pass"


@pytest.mark.slow
def test_a_slow_start_and_a_rank_that_stands_still_are_no_failure(tmp_path: Path) -> None:
    """Imports take much longer beside busy loops; later one rank is stopped, as on a host that swaps."""
    run_dir, screen = tmp_path / "run", tmp_path / "screen"
    paths = (f"data.root={tmp_path / 'data'}", f"training.run_dir={run_dir}")
    settings = (*FEW_ROWS, *paths, "training.log_every=1", "training.epochs=2", "checkpoint.delta_every_s=0.5")
    with ExitStack() as stack, screen.open("w") as output:
        for _ in range(LOOPS):
            stack.callback(subprocess.Popen([sys.executable, "-I", "-S", "-c", LOOP]).wait)
        environment = os.environ | {"RAY_ADDRESS": "local"}
        train = command("train", QUICKSTART, *settings)
        job = subprocess.Popen(train, cwd=ROOT, env=environment, stdout=output, stderr=output)
        stack.callback(job.terminate)
        while not (run_dir / "metrics.jsonl").exists() or max(losses(run_dir), default=0) < 10:
            assert job.poll() is None, screen.read_text()
            time.sleep(0.05)
        log = (run_dir / "logs/latest/rank_1.log").read_text()
        rank = int(re.findall(r"process (\d+) on", log)[0])
        os.kill(rank, signal.SIGSTOP)
        time.sleep(STANDS_STILL_S)
        os.kill(rank, signal.SIGCONT)
        assert job.wait(timeout=120) == 0, screen.read_text()
    assert "failed" not in screen.read_text()
    assert [path.name for path in run_dir.glob("logs/attempt_*")] == ["attempt_1"]
    assert list(losses(run_dir)) == list(range(1, 81))
