"""The script for Slurm on one host, with stand-ins for Slurm's commands: stopped before its end, then continued."""

import signal
from pathlib import Path

import pytest

from tests.cluster.deploy.bare import bare_hosts
from tests.cluster.hosts import ROOT
from tests.trainer.workers import FEW_ROWS, losses

SCRIPT = str(ROOT / "cluster" / "deploy" / "slurm.sh")
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
case $1 in show) echo this-host ;; *) echo "$@" >>"$HOME/asked" ;; esac
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_goes_back_into_the_queue_and_continues(tmp_path: Path) -> None:
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    run = tmp_path / "run"
    settings = (*FEW_ROWS, f"data.root={tmp_path / 'data'}", f"training.run_dir={run}", "training.log_every=1")
    settings += ("training.epochs=10",)  # so that it is stopped amid them
    command = (SCRIPT, str(ROOT / "configs" / "quickstart.yaml"), *settings, "launch.workers=1")
    with bare_hosts(1, tmp_path) as bare:
        (host,) = bare.hosts
        slurm = {
            "PATH": f"{tmp_path}:{bare.environment['PATH']}",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "this-host",
        }
        job = bare.start(host, *command, screen="screen", **slurm)
        bare.until(lambda: "step 3/" in bare.screen("screen"), 200, "screen")
        host.signal_to(job, signal.SIGTERM)
        assert job.wait(timeout=240) == 0, bare.screen("screen")
        assert (tmp_path / "asked").read_text().split() == ["requeue", "4711"]
        assert not [process for process in host.processes() if "raylet" in process.command]
        assert "done: " not in bare.screen("screen")

        assert bare.start(host, *command, screen="screen", **slurm).wait(timeout=240) == 0, bare.screen("screen")
        assert f"done: {run}" in bare.screen("screen")
        assert (tmp_path / "asked").read_text().split() == ["requeue", "4711"]
        steps = list(losses(run))
        assert steps == list(range(1, len(steps) + 1))
