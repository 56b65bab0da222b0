"""`doctor` on three hosts, each with one fault: it is named, with the hosts, in far less than a minute."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts import QUICK_CHECKS, ROOT, Cluster, hosts
from tests.cluster.namespaces import Host

pytestmark = pytest.mark.slow

QUICK = ("doctor.bandwidth_mib=0", "doctor.folder_s=3", "doctor.connect_s=3")


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with hosts(3, environment=QUICK_CHECKS) as cluster:
        yield cluster


def doctor(cluster: Cluster, folder: Path, *settings: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and what `--json` says."""
    screen = folder / "screen"
    paths = (f"data.root={folder / 'data'}", f"training.run_dir={folder / 'run'}")  # later ones win
    command = (sys.executable, "-m", "trainer", "doctor", ROOT / "configs" / "quickstart.yaml", "--json")
    code = cluster.start(*command, *paths, *settings, screen=screen).wait(timeout=100)
    lines = screen.read_text().splitlines()
    return code, json.loads(next(line for line in lines if line.startswith('{"ok"')))


def errors(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["check"], one["said"]) for one in values["checks"] if one["result"] == "error"]


def on(host: Host, *command: str) -> None:
    assert host.start(command, cwd=ROOT, env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}).wait(timeout=10) == 0


@contextmanager
def mounted(host: Host, *mount: str) -> Iterator[None]:
    on(host, "mount", *mount)
    yield
    on(host, "umount", mount[-1])


def test_three_hosts_that_are_well(three: Cluster, tmp_path: Path) -> None:
    code, values = doctor(three, tmp_path, "launch.workers=3", "doctor.bandwidth_mib=4")
    assert code == 0, values
    checks = {one["check"]: one for one in values["checks"]}
    assert checks["nodes"]["values"]["nodes"] == 3
    assert "all 3 pairs" in checks["connections"]["said"]
    assert checks["interfaces"]["said"] == "gloo takes eth0"
    assert checks["detection"] | {"said": ""} == checks["detection"] | {"said": "", "result": "ok"}
    assert checks["folders"]["said"].count("written by each of 3 nodes, read by all")
    assert checks["bandwidth"]["result"] == "ok"
    assert checks["bandwidth"]["values"]["ranks"] == 3
    assert checks["bandwidth"]["values"]["all_to_all_gb_s"] > 0


def test_a_pair_that_does_not_reach_each_other_is_named(three: Cluster, tmp_path: Path) -> None:
    one, two = three[1], three[2]
    one.in_network("ip", "route", "add", "blackhole", f"{two.address}/32")
    try:
        began = time.monotonic()
        code, values = doctor(three, tmp_path, *QUICK, "doctor.bandwidth_mib=4")
        assert time.monotonic() - began < 60
    finally:
        one.in_network("ip", "route", "del", "blackhole", f"{two.address}/32")
    assert code == 1
    found = [check for check in values["checks"] if check["result"] == "error"]
    assert len(found) == 1, found
    assert all(host.address in found[0]["said"] for host in (one, two))
    assert three[0].address not in found[0]["said"]
    assert len(found[0]["values"]["pairs"]) == 1
    assert values["checks"][-1]["said"] == "first correct the connections above"  # no group that would hang


def test_folders_versions_and_code_that_differ(three: Cluster, tmp_path: Path) -> None:
    one, two = three[1], three[2]
    for part in ("runs", "data"):
        (tmp_path / part).mkdir()
    pyarrow = distribution("pyarrow")
    metadata = Path(str(pyarrow.locate_file(f"pyarrow-{pyarrow.version}.dist-info/METADATA")))
    other = tmp_path / "METADATA"
    other.write_text(re.sub(r"(?m)^Version: .*", "Version: 25.0.0", metadata.read_text()))
    changed = tmp_path / "changed.py"
    changed.write_text("# changed\n")
    paths = (f"data.root={tmp_path / 'data' / 'new'}", f"training.run_dir={tmp_path / 'runs' / 'new'}")
    with (
        mounted(two, "-t", "tmpfs", "other", str(tmp_path / "runs")),
        mounted(one, "-t", "tmpfs", "-o", "ro", "other", str(tmp_path / "data")),
        mounted(two, "--bind", str(other), str(metadata)),
        mounted(one, "--bind", str(changed), str(ROOT / "trainer" / "due.py")),
    ):
        code, values = doctor(three, tmp_path, *QUICK, *paths)
    assert code == 1
    found = errors(values)
    assert any(check == "folders" and "runs/new" in said and two.address in said for check, said in found)
    assert any(f"{name(one)} cannot write: Read-only file system" in said for _, said in found)
    assert any(check == "versions" and f"25.0.0 on {name(two)}" in said for check, said in found)
    assert any(check == "code" and name(one) in said and name(two) in said for check, said in found)
    assert not list(tmp_path.rglob(".doctor-*"))


def test_the_loopback_by_mistake_and_a_host_that_is_cut_off(three: Cluster, tmp_path: Path) -> None:
    """The last one here: it leaves the cluster damaged."""
    three.environment["GLOO_SOCKET_IFNAME"] = "lo"
    wrong = three.add()
    three.cut(three[2])
    began = time.monotonic()
    code, values = doctor(three, tmp_path, *QUICK, "doctor.answer_s=10")
    assert time.monotonic() - began < 60
    assert code == 1
    interfaces = next(one for one in values["checks"] if one["check"] == "interfaces")
    assert f"gloo would use 127.0.0.1 on {name(wrong)}" in interfaces["said"]
    assert interfaces["remedy"] == f"on {name(wrong)}, before `ray start`: export GLOO_SOCKET_IFNAME=eth0"
    about_cut = [one for one in values["checks"] if name(three[2]) in one["said"] and one["result"] != "ok"]
    assert {"nodes", "connections"} <= {one["check"] for one in about_cut}


def name(host: Host) -> str:
    return f"{subprocess.check_output(['hostname'], text=True).strip()} ({host.address})"
