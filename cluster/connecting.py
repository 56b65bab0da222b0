"""Which Ray cluster a run joins; one that is started for it alone is `private`."""

import os
import socket
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import ray
from ray._private.utils import read_ray_address

from cluster.private import start
from configs.errors import UserError
from configs.schema import LaunchConfig

_OPTIONS = {"log_to_driver": False, "logging_level": "ERROR"}
_PROJECT = Path(__file__).resolve().parents[1]
_ANSWER_S = 10.0  # a cluster answers in milliseconds


class Connection(NamedTuple):
    """Of this process to a cluster."""

    is_new: bool
    """False when the process was connected before."""
    is_private: bool
    """Whether the cluster was started for this run alone."""


def connect(launch: LaunchConfig, environment: Mapping[str, str]) -> Connection:
    """Joins the cluster that is meant, or starts a private one on this machine.

    Meant are, in this order: launch.address, RAY_ADDRESS (a submitted job has it), or what `ray start` started here.
    The private cluster of another run is not: it would end under this one.

    Args:
        environment: variables of the processes of a private cluster.

    Raises:
        UserError: no cluster answers there.
    """
    if ray.is_initialized():
        return Connection(is_new=False, is_private=False)
    source, address = _meant(launch)
    if address is None:
        start(launch, environment, _OPTIONS)
        return Connection(is_new=True, is_private=True)
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
    return Connection(is_new=True, is_private=False)


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
