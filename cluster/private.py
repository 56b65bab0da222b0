"""A Ray cluster on this machine for one run alone: of Ray's processes those that a run needs, started at once.

Ray also starts a dashboard, an autoscaler and a forwarder of logs. A run that joins no cluster uses none of them, and
waiting for the first costs 2 seconds. Workers come from processes that Ray keeps ready: their environment is that of
the cluster, since an environment of their own would make Ray start each of them anew.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
import ray._private.node
import ray._private.utils
from ray._common.utils import get_default_system_temp_dir

from configs.errors import UserError
from configs.schema import LaunchConfig

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


def start(launch: LaunchConfig, environment: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """Starts the cluster, with room for all workers, whose processes have `environment`.

    options: of ray.init.
    """
    cpus = launch.workers * launch.cpus_per_worker + 1  # Ray keeps as many processes ready
    try:
        # Workers search the folder first from which Ray was started: not a user's torch.py.
        with chdir(_PROJECT), _variables(environment), _few_processes():
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

    Where what a dashboard needs is not installed, the agent that would feed one leaves that out; it is part of the
    start, imports for a second otherwise, and the driver with it.
    """
    with (
        patch.object(ray._private.node, "Node", _Node),
        patch.object(ray._private.utils, "get_dashboard_dependency_error", lambda: ImportError("not asked for")),
    ):
        yield


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
