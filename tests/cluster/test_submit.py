"""A job submitted to a Ray cluster, as the README says: `ray job submit --working-dir . -- python -m trainer train`."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer.commands.test_commands import OPTIONS
from tests.trainer.workers import losses

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """The address of a cluster with four CPUs; its processes are ended by pid."""
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    ENVIRONMENT.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
    port = free_port()
    start = [RAY, "start", "--head", f"--port={free_port()}", "--num-cpus=4", f"--dashboard-port={port}"]
    folder = Path(f"/tmp/ray-{os.getpid()}")  # short: paths of Unix sockets end at 107 characters
    subprocess.run([*start, f"--temp-dir={folder}"], check=True, env=ENVIRONMENT, capture_output=True, timeout=120)
    yield f"http://127.0.0.1:{port}"
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder) in command.read_text():
                os.kill(int(command.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_submitted_job_trains(dashboard: str, tmp_path: Path) -> None:
    paths = (f"data.root={tmp_path / 'data'}", f"training.run_dir={tmp_path / 'run'}")
    train = ["python", "-m", "trainer", "train", "configs/quickstart.yaml", *OPTIONS, *paths, "training.epochs=1"]
    submit = [RAY, "job", "submit", f"--address={dashboard}", "--working-dir", ".", "--", *train]
    done = subprocess.run(submit, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "step 40/40" in done.stdout
    assert max(losses(tmp_path / "run")) == 40
