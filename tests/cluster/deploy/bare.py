"""Hosts on which nothing runs: the scripts of cluster/deploy start Ray there themselves."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster.hosts import ROOT
from tests.cluster.namespaces import INTERFACE, Host, switch, why_not


class Bare(NamedTuple):
    """Hosts, and what their processes have in common."""

    hosts: list[Host]
    folder: Path
    environment: dict[str, str]

    def start(self, host: Host, *command: str, screen: str, **variables: str) -> "subprocess.Popen[str]":
        """screen: name of the file below `folder` for what it prints."""
        with (self.folder / screen).open("a") as output:
            return host.start(command, cwd=ROOT, env=self.environment | variables, output=output.fileno())

    def screen(self, name: str) -> str:
        return (self.folder / name).read_text()

    def until(self, is_so: Callable[[], bool], seconds: float, screen: str) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, self.screen(screen)
            time.sleep(0.2)


@contextmanager
def bare_hosts(count: int, folder: Path) -> Iterator[Bare]:
    """Skips the test where a machine cannot have them."""
    if reason := why_not():
        pytest.skip(reason)
    private = Path(tempfile.mkdtemp(prefix="bare-", dir="/tmp"))
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "RAY_TMPDIR": str(private),
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "PYTHONPATH": str(ROOT),
    }
    with switch() as joined:
        hosts = [Host(number, private) for number in range(count)]
        try:
            for host in hosts:
                joined.connect(host)
                host.boot()
                host.in_network("ip", "route", "add", "default", "dev", INTERFACE)
            yield Bare(hosts, folder, environment)
        finally:
            for host in hosts:
                host.close()
            private.rmdir()
