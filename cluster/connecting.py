"""Which Ray cluster a run joins, and how one is started for it alone."""

import os
import socket
from contextlib import chdir
from pathlib import Path

import ray
from ray._common.utils import get_default_system_temp_dir
from ray._private.utils import read_ray_address

from configs.errors import UserError
from configs.schema import LaunchConfig

_OPTIONS = {"log_to_driver": False, "logging_level": "ERROR"}
_PROJECT = Path(__file__).resolve().parents[1]
_ANSWER_S = 10.0  # a cluster answers in milliseconds
_LONGEST_SOCKET = 107  # bytes of a Unix socket's path
_BELOW_TEMP = len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.00")


def connect(launch: LaunchConfig) -> bool:
    """Joins the cluster that is meant, or starts one on this machine with room for all workers.

    Meant are, in this order: launch.address, RAY_ADDRESS (a submitted job has it), or what `ray start` started here.
    The private cluster of another run is not: it would end under this one.

    Returns:
        Whether this call connected; False when the process was connected before.

    Raises:
        UserError: no cluster answers there.
    """
    if ray.is_initialized():
        return False
    source, address = _meant(launch)
    if address is None:
        _start(launch)
        return True
    _check_form(source, address)
    try:
        _knock(address)
        with chdir(_PROJECT):
            ray.init(address=address, **_OPTIONS)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster answers at {address}, from {source}\n"
            "start it, or clear what is left of it: unset RAY_ADDRESS, ray stop"
        ) from error
    return True


def _meant(launch: LaunchConfig) -> tuple[str, str | None]:
    """Where the address comes from, and the address; None to start a cluster."""
    last = "the last `ray start` on this machine"
    given = {"launch.address": launch.address, "RAY_ADDRESS": os.environ.get("RAY_ADDRESS")}
    source, address = next(((name, value) for name, value in given.items() if value), (last, None))
    if address == "local":
        return source, None
    if address is not None and address != "auto":
        return source, address
    started = read_ray_address()
    if address == "auto" and not started:
        raise UserError(
            f"{source}=auto, but no `ray start` was called on this machine\n"
            "call it, give HOST:PORT, or unset it: then a run starts a cluster of its own"
        )
    return last, started or None


def _check_form(source: str, address: str) -> None:
    if "://" in address:
        kind = "of Ray's client" if address.startswith("ray://") else "of a dashboard, for `ray job submit`"
        raise UserError(
            f"{source}={address} is an address {kind}; a run joins HOST:PORT, port 6379 if `ray start` chose it\n"
            f"give that, or unset {source}: then a run starts a cluster of its own"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{source}={address} is not HOST:PORT\ngive such an address, auto or local")


def _knock(address: str) -> None:
    """Ray itself tries for 14 minutes to reach a cluster that has gone. Raises OSError when nothing is there."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # tries of Ray's where something else answers


def _start(launch: LaunchConfig) -> None:
    cpus = max(os.cpu_count() or 1, launch.workers * launch.cpus_per_worker + 1)
    try:
        with chdir(_PROJECT):  # workers search the folder first from which Ray was started: not a user's torch.py
            ray.init("local", num_cpus=cpus, include_dashboard=False, _temp_dir=_short_temp_dir(), **_OPTIONS)
    except OSError as error:
        raise UserError(
            f"Ray cannot start on this machine: {error}\nset RAY_TMPDIR to a short folder of yours"
        ) from error


def _short_temp_dir() -> str | None:
    """A folder for Ray's sockets in place of a TMPDIR that is too long for them; None if that is short enough."""
    return None if len(get_default_system_temp_dir()) + _BELOW_TEMP <= _LONGEST_SOCKET else str(Path("/tmp/ray"))
