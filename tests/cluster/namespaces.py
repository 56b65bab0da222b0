"""Machines that are processes: each has its own network, process numbers and mounts; a bridge joins their networks.

All of it lies in namespaces that end with their last process, and each process ends with this one, whatever happens to
it. The machine's own network is not touched, so that several of these stand side by side. What runs on the hosts is
not known here: `hosts` starts Ray.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

INTERFACE = "eth0"
_TOOLS = "ip", "unshare", "nsenter", "mount"
_NETWORK = "10.77.0"
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_libc = ctypes.CDLL(None)
# The first process of a host adopts what others leave, and has to take leave of it.
_FIRST = "import os, time\nwhile True:\n  try: os.wait()\n  except ChildProcessError: time.sleep(.05)"


class Process(NamedTuple):
    """Of a host."""

    pid: int
    """As everybody but the host's own processes sees it: what to kill."""
    pid_on_host: int
    """As it sees itself: what logs say."""
    command: str


class Host:
    """A machine. Its folders are those of all, but for `private`."""

    def __init__(self, number: int, private: Path) -> None:
        self.number, self.address = number, f"{_NETWORK}.{number + 1}"
        self.mac = f"02:77:00:00:00:{number + 1:02x}"
        self._private = private
        self._network = _held(["unshare", "--net", "sleep", "infinity"], "net")
        self._first: subprocess.Popen[bytes] | None = None

    @property
    def network_pid(self) -> int:
        """A process that is in the host's network and outlives the host's processes."""
        return self._network.pid

    def boot(self) -> None:
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        first = [sys.executable, "-I", "-S", "-c", _FIRST]
        mounts = f'mount -t tmpfs private {self._private} && exec "$@"'
        self._first = _held([*self._enter_network(), *inside, "sh", "-c", mounts, "sh", *first], None)
        _until(lambda: "import os, time" in _command(self._first_pid()), f"host {self.number} is up")

    def start(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: int | None = None
    ) -> subprocess.Popen[str]:
        """Starts a command; what is returned ends with it, and passes no signals on (`signal_to`)."""
        enter = ["nsenter", f"--target={self._first_pid()}", "--net", "--mount", "--pid", f"--wd={cwd}"]
        return subprocess.Popen([*enter, *command], env=env, stdout=output, stderr=output, text=True)

    def signal_to(self, started: "subprocess.Popen[str]", number: signal.Signals) -> None:
        """Sends a signal to a command of `start`."""
        os.kill(_children(started.pid)[0], number)

    def processes(self) -> list[Process]:
        """All that live, oldest first."""
        if not self.is_up():
            return []
        here = _namespace(self._first_pid(), "pid")
        pids = sorted(int(entry.name) for entry in Path("/proc").glob("[0-9]*"))
        found = [Process(pid, _pid_inside(pid), _command(pid)) for pid in pids if _namespace(pid, "pid") == here]
        return [process for process in found if process.pid_on_host and process.command]

    def process(self, pid_on_host: int) -> Process:
        return next(process for process in self.processes() if process.pid_on_host == pid_on_host)

    def is_up(self) -> bool:
        return self._first is not None and self._first.poll() is None

    def kill(self) -> None:
        """All processes at once, by SIGKILL. The network stays: whoever knocks is refused."""
        if self._first is not None:
            self._first.kill()
            self._first.wait()
            self._first = None

    def close(self) -> None:
        self.kill()
        self._network.kill()
        self._network.wait()

    def in_network(self, *command: str) -> None:
        _call(*self._enter_network(), *command)

    def _enter_network(self) -> list[str]:
        return ["nsenter", f"--target={self._network.pid}", "--net"]

    def _first_pid(self) -> int:
        assert self._first is not None
        return next(iter(_children(self._first.pid)), 0)


class Switch:
    """Joins hosts."""

    def __init__(self) -> None:
        self._process = _held(["unshare", "--net", "sleep", "infinity"], "net")
        self._hosts: list[Host] = []
        self._call("ip", "link", "add", "name", "switch", "type", "bridge")
        self._call("ip", "link", "set", "switch", "up")

    def connect(self, host: Host) -> None:
        """Gives the host its address, and everybody its hardware address: no packet is refused for want of one."""
        link = ["ip", "link", "add", "name", self._port(host), "type", "veth"]
        self._call(*link, "peer", "name", INTERFACE, "address", host.mac, "netns", str(host.network_pid))
        self._call("ip", "link", "set", self._port(host), "master", "switch", "up")
        host.in_network("ip", "link", "set", "lo", "up")
        host.in_network("ip", "address", "add", f"{host.address}/24", "dev", INTERFACE)
        host.in_network("ip", "link", "set", INTERFACE, "up")
        for other in self._hosts:
            for one, two in ((host, other), (other, host)):
                one.in_network("ip", "neigh", "replace", two.address, "lladdr", two.mac, "dev", INTERFACE)
        self._hosts.append(host)

    def cut(self, host: Host) -> None:
        """No packet reaches the host or comes from it, and nobody is told."""
        self._call("ip", "link", "set", self._port(host), "nomaster")

    def mend(self, host: Host) -> None:
        self._call("ip", "link", "set", self._port(host), "master", "switch")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _port(self, host: Host) -> str:
        return f"host{host.number}"

    def _call(self, *command: str) -> None:
        _call("nsenter", f"--target={self._process.pid}", "--net", *command)


def why_not() -> str | None:
    """What this machine lacks for hosts, if it lacks something."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: iproute2, util-linux)"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "ip", "link", "add", "type", "veth"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"namespaces are not allowed: {tried.stderr.strip()}" if tried.returncode else None


@contextmanager
def switch() -> Iterator[Switch]:
    made = Switch()
    try:
        yield made
    finally:
        made.close()


def _held(command: list[str], namespace: str | None) -> "subprocess.Popen[bytes]":
    """A process that ends with this one; returns once it is in a namespace of its own."""
    process = subprocess.Popen(command, preexec_fn=_die_with_parent)
    if namespace is not None:
        here = _namespace(os.getpid(), namespace)
        _until(
            lambda: _namespace(process.pid, namespace) not in (here, ""), f"{command[0]} has a {namespace} namespace"
        )
    return process


def _die_with_parent() -> None:
    _libc.prctl(_DIES_WITH_PARENT, signal.SIGKILL)


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _until(is_so: Callable[[], bool], what: str, timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, f"waited {timeout_s} s until {what}"
        time.sleep(0.01)


def _namespace(pid: int, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""  # it has ended


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _pid_inside(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])
