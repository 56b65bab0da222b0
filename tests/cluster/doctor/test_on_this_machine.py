"""`doctor` without a cluster: this machine alone, in a cluster of its own; and the parts that need one process."""

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.doctor import interfaces
from cluster.doctor.node_facts import facts
from cluster.doctor.reaching import Listening, reach_all
from configs.errors import UserError
from trainer.cli import app
from trainer.commands import doctor as command
from trainer.run.environment import PACKAGES

ROOT = Path(__file__).resolve().parents[3]


def test_a_laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    paths = [f"data.root={tmp_path}/data", f"training.run_dir={tmp_path}/run"]
    settings = ["doctor.bandwidth_mib=1", "launch.workers=2", "doctor.min_free_gib=0.01"]
    config = str(ROOT / "configs" / "quickstart.yaml")
    done = CliRunner().invoke(app, ["doctor", config, "--json", *paths, *settings])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout.splitlines()[-1])
    checks = {one["check"]: one for one in values["checks"]}
    assert values["ok"]
    assert {"nodes", "versions", "code", "workers", "folders", "connections", "bandwidth"} <= set(checks)
    assert checks["bandwidth"]["values"]["ranks"] == 2
    assert checks["bandwidth"]["values"]["all_reduce_gb_s"] > 0
    assert checks["versions"]["values"]["ray"]
    assert not list(tmp_path.glob(".doctor-*"))


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    done = CliRunner().invoke(app, ["doctor"])
    with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:9"):
        raise done.exception or AssertionError(done.output)


def test_what_has_no_deadline_of_its_own_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(command, "_SLACK_S", -1e3)  # all deadlines together are over at once
    monkeypatch.setattr(command.os, "_exit", lambda code: ended.set() if code == 1 else None)
    monkeypatch.setattr(command, "_findings", lambda *asked: filter(None, [ended.wait(20) and None]))
    done = CliRunner().invoke(app, ["doctor"])
    assert ended.is_set()
    assert "joining the cluster did not end" in done.output


def test_a_file_of_the_cluster_s_sections_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(command, "_findings", lambda *given: asked.append(given) or iter(()))
    file = tmp_path / "cluster.yaml"
    file.write_text("launch: {workers: 3}\ndoctor: {bandwidth_mib: 2}\n")
    done = CliRunner().invoke(app, ["doctor", str(file), "doctor.answer_s=7"])
    assert done.exit_code == 0, done.output
    ((run, launch, settings),) = asked
    assert (run, launch.workers, settings.bandwidth_mib, settings.answer_s) == (None, 3, 2, 7)


def test_a_node_describes_itself() -> None:
    there = facts(PACKAGES, ["cluster", "no_such_package"])
    json.dumps(there)
    assert there["packages"]["ray"]
    assert there["code"]["no_such_package"] is None
    assert there["code"]["cluster"]["path"] == str(ROOT / "cluster")
    assert there["processor"]["cores"] == len(os.sched_getaffinity(0))
    assert "127.0.0.1" in there["interfaces"]["lo"]["addresses"]


def test_whose_token_file_others_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    assert facts([], [])["token"] == {"path": str(token), "others_read": True}
    token.chmod(0o600)
    assert facts([], [])["token"] == {"path": str(token), "others_read": False}
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")  # then no file is read
    assert facts([], [])["token"] is None


def test_connections_and_clocks() -> None:
    listening = Listening("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        closed = probe.getsockname()[1]
    targets = [
        {"node": "n", "address": "127.0.0.1", "port": port, "what": "ranks"} for port in (listening.port, closed)
    ]
    targets.append({"node": "n", "address": "192.0.2.1", "port": 1, "what": "raylet"})  # for documents: nobody is there
    began = time.monotonic()
    well, refused, silent = reach_all(targets, 1.0)
    assert time.monotonic() - began < 20
    assert abs(well["ahead_s"]) < 1  # half of what the answer took may be counted
    assert refused["problem"] == "Connection refused"
    assert "problem" in silent
    listening.close()


def test_the_interface_that_gloo_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"lo": {"addresses": ["127.0.0.1"], "up": True}, "eth0": {"addresses": ["10.0.0.1"], "up": True}}
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    assert interfaces.gloo_choice(there)["address"] == "10.0.0.1"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth1")
    assert "eth1 is no interface here: there are lo, eth0" in interfaces.gloo_choice(there)["problem"]
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    assert interfaces.gloo_choice(there)["interface"] == "lo"
    monkeypatch.setattr(socket, "gethostname", lambda: "no-such-host.invalid")
    assert interfaces.gloo_choice(there)["address"] == "127.0.0.1"
    assert interfaces.nccl_choice(there) == "eth0"
    assert interfaces.nccl_choice(there | {"ib0": there["eth0"]}) == "ib0"
