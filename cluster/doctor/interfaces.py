"""Which network interface a node would use: what gloo, NCCL and the system choose. The standard library alone."""

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path
from typing import Any


def interfaces() -> dict[str, dict[str, Any]]:
    """Name -> its addresses, whether it is up, and its speed in Mbit/s where the system knows it."""
    found: dict[str, dict[str, Any]] = {}
    for _, name in socket.if_nameindex():
        folder = Path("/sys/class/net") / name
        state, speed = text_of(folder / "operstate"), text_of(folder / "speed")
        found[name] = {
            "addresses": [address for address in [_ipv4(name)] if address],
            "up": state != "down",
            "mbit_s": int(speed) if speed and int(speed) > 0 else None,
        }
    for line in (text_of(Path("/proc/net/if_inet6")) or "").splitlines():
        digits, *_, name = line.split()
        address = ipaddress.IPv6Address(int(digits, 16))
        if name in found and not address.is_link_local:
            found[name]["addresses"].append(str(address))
    return found


def gloo_choice(there: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The address through which gloo would talk, and why; `problem` where it could not.

    As torch decides: GLOO_SOCKET_IFNAME; else what the host's name resolves to, if that is an address of this machine;
    else the loopback.
    """
    given = os.environ.get("GLOO_SOCKET_IFNAME")
    if given:
        first = given.split(",")[0]
        addresses = there.get(first, {}).get("addresses", [])
        why = f"GLOO_SOCKET_IFNAME={given}"
        if not addresses:
            what = "has no address" if first in there else "is no interface"
            return {"address": None, "why": why, "problem": f"{first} {what} here: there are {', '.join(there)}"}
        return {"address": addresses[0], "interface": first, "why": why}
    name = socket.gethostname()
    address = _own_address_of(name)
    if address is None:
        return {"address": "127.0.0.1", "interface": "lo", "why": f"the host's name {name} resolves to no address here"}
    return {"address": address, "interface": _with(address, there), "why": f"the host's name {name}"}


def nccl_choice(there: dict[str, dict[str, Any]]) -> str | None:
    """The interface that NCCL would take for its start, and for all data where there is no InfiniBand."""
    given = os.environ.get("NCCL_SOCKET_IFNAME")
    if given:
        return given
    usable = [name for name, one in there.items() if one["addresses"] and one["up"]]
    order = sorted(usable, key=lambda name: (name == "lo", name.startswith("docker"), not name.startswith("ib")))
    return order[0] if order else None


def text_of(path: Path) -> str | None:
    """What a file of the system says; None where it is missing or gives no answer."""
    try:
        return path.read_text().strip()
    except OSError:  # such as the speed of an interface that has none
        return None


def _ipv4(name: str) -> str | None:
    request = struct.pack("256s", name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        return socket.inet_ntoa(fcntl.ioctl(probe, 0x8915, request)[20:24])  # SIOCGIFADDR
    return None


def _own_address_of(name: str) -> str | None:
    """The first address of a name to which this machine can bind."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return None
    for family, kind, protocol, _, address in answers:
        with socket.socket(family, kind, protocol) as probe, contextlib.suppress(OSError):
            probe.bind(address)
            return str(address[0])
    return None


def _with(address: str, there: dict[str, dict[str, Any]]) -> str | None:
    if ipaddress.ip_address(address.split("%")[0]).is_loopback:
        return "lo"
    return next((name for name, one in there.items() if address in one["addresses"]), None)
