"""A Ray cluster on this machine for one run alone: of Ray's processes those that a run needs, started at once.

Ray also starts a dashboard, an autoscaler, a forwarder of logs, and two agents: one feeds the dashboard, one makes
environments. A run that joins no cluster uses none of them. Waiting for the dashboard costs 2 seconds, for the agents
one, since Ray starts no worker before them. Workers come from processes that Ray keeps ready: their environment is that
of the cluster, since an environment of their own would make Ray start each of them anew.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
import ray._private.node
import ray._private.services
import ray._private.utils
import ray._raylet as raylet
from ray._common.utils import get_default_system_temp_dir

from cluster.imports import without_collections
from configs.errors import UserError
from configs.schema import LaunchConfig

_raylet: Any = raylet  # compiled, and declared nowhere
_SERVICES = (
    _raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME,
    _raylet.METRICS_AGENT_PORT_NAME,
    _raylet.METRICS_EXPORT_PORT_NAME,
    _raylet.RUNTIME_ENV_AGENT_PORT_NAME,
)
_WAIT = "import os, time; parent = os.getppid()\nwhile os.getppid() == parent != 1: time.sleep(1)"
_NOBODY = [sys.executable, "-I", "-S", "-c", _WAIT]  # the raylet ends when one of its agents does
_start_ray_process = ray._private.services.start_ray_process
_PROJECT = Path(__file__).resolve().parents[1]
_LONGEST_SOCKET = 107  # bytes of a Unix socket's path
_BELOW_TEMP = len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.00")


class _Node(ray._private.node.Node):
    """The head of such a cluster."""

    def start_api_server(self, **_: Any) -> None:
        self._webui_url = ""

    def start_monitor(self) -> None:
        """The autoscaler."""

    def start_log_monitor(self) -> None:
        """The forwarder of logs: lines for the screen come through `Channel`."""

    def start_raylet(self, *arguments: Any, **options: Any) -> None:
        """Tells the raylet, which waits for the agents to do so, that none of their services is there; then imports."""
        for service in _SERVICES:
            _raylet.persist_port(self._session_dir, self._node_id, service, -1)
        super().start_raylet(*arguments, **options)
        # The raylet sleeps for a second while its object store starts; this import takes as long. Not in a thread:
        # two that import may meet in a half-made module.
        with without_collections():
            import_module("cluster.group")


def start(launch: LaunchConfig, environment: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """Starts the cluster, with room for all workers, whose processes have `environment`.

    options: of ray.init.
    """
    cpus = launch.workers * launch.cpus_per_worker + 1  # Ray keeps as many processes ready
    try:
        # Workers search the folder first from which Ray was started: not a user's torch.py.
        at_once = {"RAY_worker_maximum_startup_concurrency": str(cpus)}  # Ray's own: as many as there are cores
        with chdir(_PROJECT), _variables({**environment, **at_once}), _few_processes():
            ray.init("local", num_cpus=cpus, include_dashboard=False, _temp_dir=_short_temp_dir(), **options)
    except OSError as error:
        raise UserError(
            f"Ray cannot start on this machine: {error}\nset RAY_TMPDIR to a short folder of yours"
        ) from error


def _short_temp_dir() -> str | None:
    """A folder for Ray's sockets in place of a TMPDIR that is too long for them; None if that is short enough."""
    return None if len(get_default_system_temp_dir()) + _BELOW_TEMP <= _LONGEST_SOCKET else str(Path("/tmp/ray"))


@contextmanager
def _few_processes() -> Iterator[None]:
    """ray.init has no option for each of its processes.

    The driver imports less where what a dashboard needs seems not to be installed.
    """
    with (
        patch.object(ray._private.node, "Node", _Node),
        patch.object(ray._private.utils, "get_dashboard_dependency_error", lambda: ImportError("not asked for")),
        patch.object(ray._private.services, "start_ray_process", _start_without_agents),
    ):
        yield


def _start_without_agents(command: list[str], *arguments: Any, **options: Any) -> Any:
    """Ray's start of a process, but for the agents, which are part of the raylet's command."""
    nobody = subprocess.list2cmdline(_NOBODY)
    agents = ("--dashboard_agent_command=", "--runtime_env_agent_command=")
    command = [next((agent + nobody for agent in agents if part.startswith(agent)), part) for part in command]
    return _start_ray_process(command, *arguments, **options)


@contextmanager
def _variables(environment: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
