"""The script for bare hosts: they find each other, and one that is stopped leaves without harm to others."""

import signal
import sys
from pathlib import Path

import pytest

from tests.cluster.deploy.bare import bare_hosts
from tests.cluster.hosts import ROOT
from tests.cluster.namespaces import INTERFACE

SCRIPT = str(ROOT / "cluster" / "deploy" / "start_host.sh")
SIZES = ("--num-cpus=1", "--object-store-memory=100000000")
DOCTOR = (sys.executable, "-m", "trainer", "doctor")
WORK = """
import sys, time, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
ray.init(log_to_driver=False)
node = next(one["NodeID"] for one in ray.nodes() if one["NodeManagerAddress"] == sys.argv[1])
@ray.remote(num_cpus=1, scheduling_strategy=On(node, soft=False))
def work(path):
    open(path, "w").write("begun")
    time.sleep(6)
    open(path, "a").write(", ended")
ray.get(work.remote(sys.argv[2]))
"""


@pytest.mark.slow
def test_hosts_join_and_leave(tmp_path: Path) -> None:
    with bare_hosts(2, tmp_path) as bare:
        head, other = bare.hosts
        address = f"{head.address}:6379"
        client = {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": address}
        bare.start(head, SCRIPT, "head", *SIZES, screen="head")
        bare.until(lambda: "block forever" in bare.screen("head"), 60, "head")
        assert f"the others: start_host.sh {address}" in bare.screen("head")
        assert (tmp_path / "token").stat().st_mode & 0o77 == 0

        without = bare.start(other, SCRIPT, address, screen="without", RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"))
        assert without.wait(timeout=20) == 2
        assert "copy it from the head" in bare.screen("without")

        joined = bare.start(other, SCRIPT, address, *SIZES, screen="other", DRAIN_S="30")
        bare.until(lambda: "block forever" in bare.screen("other"), 60, "other")
        assert bare.start(head, *DOCTOR, screen="doctor", **client).wait(timeout=60) == 0, bare.screen("doctor")
        for said in ("2 nodes", f"gloo takes {INTERFACE}", "detection    ok", "token        ok"):
            assert said in bare.screen("doctor"), bare.screen("doctor")

        mark = tmp_path / "mark"
        command = (sys.executable, "-c", WORK, other.address, str(mark))
        work = bare.start(head, *command, screen="work", **client)
        bare.until(mark.exists, 40, "work")
        other.signal_to(joined, signal.SIGTERM)
        assert joined.wait(timeout=40) == 0, bare.screen("other")
        assert mark.read_text() == "begun, ended"
        assert work.wait(timeout=10) == 0
        assert "Ray has ended here" in bare.screen("other")  # after the work, not when the time was over
        assert not [process for process in other.processes() if "raylet" in process.command]
        assert [process for process in head.processes() if "/raylet/raylet" in process.command]
