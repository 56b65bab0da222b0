"""What the driver of a run loads: it only tells workers what to do, and every run waits for it first."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_driver_imports_no_torch() -> None:
    loaded = "import sys, trainer.cli, trainer.prepare, cluster.launch, cluster.group; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
