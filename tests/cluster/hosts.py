"""Hosts on one machine, each with its own Ray: what may happen to the hosts of a run, in tests and benchmarks.

    with hosts(2) as cluster:
        job = cluster.train(CONFIG, "launch.workers=2")
        cluster[1].kill()

Files are those of this machine on all hosts; only the temporary folder is each host's own. What a host is, and that
all its processes end, is the business of `namespaces`.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.cluster.namespaces import INTERFACE, Host, Process, Switch, switch, why_not

ROOT = Path(__file__).resolve().parents[2]
QUICK_CHECKS = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""For `hosts(environment=...)`: a host that does not answer is called dead after 7 seconds instead of 50."""
_RAY = str(Path(sys.executable).with_name("ray"))
_PORT = 6379
_STARTS_S = 120
_STORE_BYTES = 100 << 20


class Rank(NamedTuple):
    """A worker, as its log says."""

    host: Host
    process: Process
    """The one that trains."""


class Cluster:
    """Hosts 0, 1, ..., of which the first is Ray's head and runs the commands."""

    def __init__(self, joined: Switch, folder: Path, cpus: int, environment: Mapping[str, str]) -> None:
        self._switch, self._folder, self._cpus = joined, folder, cpus
        self.hosts: list[Host] = []
        self._unfit: list[Host] = []  # cut off or drained
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder),
            "RAY_TMPDIR": str(folder),  # Ray's notes of other clusters on this machine are not seen
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "GLOO_SOCKET_IFNAME": INTERFACE,
            **environment,
        }

    def __getitem__(self, number: int) -> Host:
        return self.hosts[number]

    @property
    def address(self) -> str:
        return f"{self.hosts[0].address}:{_PORT}"

    def add(self, cpus: int | None = None) -> Host:
        """Another host, which joins."""
        host = Host(len(self.hosts), self._folder)
        self.hosts.append(host)
        self._switch.connect(host)
        self.boot(host, cpus)
        return host

    def boot(self, host: Host, cpus: int | None = None) -> None:
        """Starts the host, and Ray on it; again after `kill`."""
        host.boot()
        is_head = host.number == 0
        role = ["--head", f"--port={_PORT}", "--include-dashboard=false"] if is_head else [f"--address={self.address}"]
        size = [f"--num-cpus={self._cpus if cpus is None else cpus}", f"--object-store-memory={_STORE_BYTES}"]
        self._ray(host, "start", *role, *size, f"--node-ip-address={host.address}", "--include-log-monitor=false")

    def cut(self, host: Host) -> None:
        self._switch.cut(host)
        self._unfit.append(host)

    def mend(self, host: Host) -> None:
        self._switch.mend(host)

    def repair(self) -> None:
        """All hosts are up, as they were at first; one that was cut off or drained is started anew."""
        for host in self._unfit:
            host.kill()
            self.mend(host)
        self._unfit = []
        for host in self.hosts:
            if not host.is_up():
                self.boot(host)

    def drain(self, host: Host, deadline_s: int) -> None:
        """Tells Ray that the host will be taken away after so many seconds. Returns at once."""
        self._unfit.append(host)
        raylet = next(process for process in host.processes() if "/raylet/raylet " in process.command)
        node = re.findall(r"--node_id=(\w+)", raylet.command)[0]
        told = [f"--address={self.address}", f"--node-id={node}", f"--deadline-remaining-seconds={deadline_s}"]
        reason = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=taken away"]
        self._ray(self.hosts[0], "drain-node", *told, *reason)

    def start(self, *command: str | Path, screen: Path) -> "subprocess.Popen[str]":
        """Starts a command on the head; what it prints goes into `screen`. Signals: `signal_to`."""
        with screen.open("w") as output:
            environment = {**self.environment, "RAY_ADDRESS": self.address}
            return self.hosts[0].start(list(map(str, command)), cwd=ROOT, env=environment, output=output.fileno())

    def train(self, config: Path, *overrides: str, screen: Path) -> "subprocess.Popen[str]":
        return self.start(sys.executable, "-m", "trainer", "train", config, *overrides, screen=screen)

    def signal_to(self, started: "subprocess.Popen[str]", number: signal.Signals) -> None:
        self.hosts[0].signal_to(started, number)

    def rank(self, run_dir: Path, rank: int) -> Rank:
        """Who trains rank `rank` of the newest attempt."""
        return self.rank_of((run_dir / "logs" / "latest" / f"rank_{rank}.log").read_text())

    def rank_of(self, log: str) -> Rank:
        """Who writes such a log."""
        found = re.search(r"(?:process|pid) (\d+) on ([\w.]+)", log)
        assert found, log[:500]
        host = next(host for host in self.hosts if host.address == found[2])
        return Rank(host, host.process(int(found[1])))

    def _ray(self, host: Host, *arguments: str) -> str:
        with tempfile.TemporaryFile("w+") as output:
            started = host.start([_RAY, *arguments], cwd=ROOT, env=self.environment, output=output.fileno())
            code = started.wait(timeout=_STARTS_S)
            output.seek(0)
            said = output.read()
        assert code == 0, f"ray {' '.join(arguments)}\n{said}"
        return said


@contextmanager
def hosts(count: int, *, cpus: int = 1, environment: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """So many hosts with so many CPUs each; a test is skipped where a machine cannot have them.

    environment: variables of Ray and of all that runs on the hosts.
    """
    if reason := why_not():
        import pytest  # benchmarks need it as little

        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="hosts-", dir="/tmp"))  # short: paths of Unix sockets end at 107 characters
    with switch() as joined:
        cluster = Cluster(joined, folder, cpus, environment or {})
        try:
            for _ in range(count):
                cluster.add()
            yield cluster
        finally:
            for host in cluster.hosts:
                host.close()
            shutil.rmtree(folder, ignore_errors=True)
