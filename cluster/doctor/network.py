"""Whether every node reaches every other, through which interface, and whether their clocks agree."""

from collections.abc import Iterator, Mapping
from typing import Any

from cluster.doctor.findings import Finding, named
from cluster.doctor.nodes import Node
from cluster.doctor.versions import Facts
from configs.doctor_config import DoctorConfig

_SHOWN = 8  # pairs with a line of their own

Reached = Mapping[str, list[dict[str, Any]]]
"""Node's name -> what came of its connections to the others."""


def targets_of(node: str, nodes: list[Node], ports: Mapping[str, int], facts: Facts) -> list[dict[str, Any]]:
    """What a node has to reach: of each other the raylet's port, a free one, and the same through gloo's address."""
    targets = []
    for other in nodes:
        if other.name == node:
            continue
        place = {"node": other.name, "address": other.address}
        targets.append({**place, "port": other.raylet_port, "what": "raylet"})
        if port := ports.get(other.name):
            targets.append({**place, "port": port, "what": "ranks"})
            gloo = facts[other.name]["gloo"]["address"] if other.name in facts else None
            if gloo not in (None, other.address) and not is_loopback(gloo):
                targets.append({**place, "address": gloo, "port": port, "what": "gloo"})
    return targets


def check_pairs(reached: Reached) -> Iterator[Finding]:
    """Each pair of which one does not reach the other."""
    problems: dict[tuple[str, str], dict[tuple[str, str], list[dict[str, Any]]]] = {}
    for node, connections in reached.items():
        for one in connections:
            if "problem" in one:
                pair = (min(node, one["node"]), max(node, one["node"]))
                problems.setdefault(pair, {}).setdefault((node, one["node"]), []).append(one)
    for pair, ways in list(problems.items())[:_SHOWN]:
        yield _of_pair(pair, ways)
    if len(problems) > _SHOWN:
        more = len(problems) - _SHOWN
        yield Finding("connections", "error", f"and {more:,} more pairs", "start with those above", _pairs(problems))
    if not problems and reached:
        latencies = [one["ms"] for connections in reached.values() for one in connections]
        pairs = len({frozenset((node, one["node"])) for node, connections in reached.items() for one in connections})
        slowest = f", the slowest after {max(latencies):.1f} ms" if latencies else ""
        said = f"all {pairs:,} pairs of nodes reach each other{slowest}" if pairs else "one node: nobody else to reach"
        yield Finding("connections", "ok", said, values={"slowest_ms": max(latencies, default=0.0)})


def _of_pair(pair: tuple[str, str], ways: Mapping[tuple[str, str], list[dict[str, Any]]]) -> Finding:
    directions = [f"{a} to {b}" for a, b in ways]
    failed = [one for connections in ways.values() for one in connections]
    kinds = {one["what"] for one in failed}
    one = failed[0]
    where = " and ".join(directions)
    place = f"{one['address']}, port {one['port']}: {one['problem']}"
    if kinds == {"gloo"}:
        said = f"gloo's connections do not get through, {where} ({place})"
        remedy = f"set GLOO_SOCKET_IFNAME on {one['node']} to the interface that the others reach, before `ray start`"
    elif kinds <= {"ranks", "gloo"}:
        said = f"Ray's port is open, but others are closed, {where} ({place})"
        remedy = "open all TCP ports between the nodes: ranks and Ray's workers take free ones"
    else:
        said = f"{pair[0]} and {pair[1]} do not reach each other, {where} ({place})"
        remedy = "look at routes, firewalls and security groups between the two; or train without one of them"
    return Finding("connections", "error", said, remedy, _pairs({pair: ways}))


def _pairs(problems: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    return {"pairs": [list(pair) for pair in problems]}


def check_interfaces(facts: Facts, nodes: list[Node], device: str) -> Iterator[Finding]:
    """What gloo and NCCL would choose; the loopback, by mistake, is the classical fault."""
    if len(nodes) < 2:
        yield Finding("interfaces", "ok", "one node: ranks talk through any")
        return
    addresses = {node.name: node.address for node in nodes}
    wrong = False
    for node, one in facts.items():
        gloo = one["gloo"]
        good = next((name for name, at in one["interfaces"].items() if addresses[node] in at["addresses"]), "NAME")
        remedy = f"on {node}, before `ray start`: export GLOO_SOCKET_IFNAME={good}"
        if "problem" in gloo:
            wrong = True
            yield Finding("interfaces", "error", f"gloo finds no address on {node}: {gloo['problem']}", remedy)
        elif is_loopback(gloo["address"]):
            wrong = True
            said = f"gloo would use {gloo['address']} on {node} ({gloo['why']}): ranks elsewhere cannot reach it"
            yield Finding("interfaces", "error", said, remedy)
        given = one["environment"].get("NCCL_SOCKET_IFNAME", "")
        if given and not _exists(given, one["interfaces"]):
            wrong = True
            said = f"NCCL_SOCKET_IFNAME={given} names no interface of {node}: there are {named(one['interfaces'])}"
            yield Finding("interfaces", "error" if device == "cuda" else "warning", said, f"set it to {good}")
    if not wrong:
        chosen = ", ".join(dict.fromkeys(f"{one['gloo'].get('interface')}" for one in facts.values()))
        nccl = ", ".join(dict.fromkeys(str(one["nccl"]) for one in facts.values()))
        yield Finding("interfaces", "ok", f"gloo takes {chosen}" + (f", NCCL {nccl}" if device == "cuda" else ""))


def check_clocks(reached: Reached, settings: DoctorConfig) -> Iterator[Finding]:
    """The largest difference of two clocks."""
    measured = [
        (abs(one["ahead_s"]) - one["round_trip_ms"] / 2e3, node, one)
        for node, connections in reached.items()
        for one in connections
        if "ahead_s" in one
    ]
    if not measured:
        return
    difference, node, one = max(measured, key=lambda each: each[0])
    difference = max(difference, 0.0)
    values = {"seconds": round(difference, 4)}
    if difference > settings.max_clock_difference_s:
        ahead, behind = (one["node"], node) if one["ahead_s"] > 0 else (node, one["node"])
        said = f"the clock of {ahead} is {difference:.1f} s ahead of that of {behind}"
        yield Finding("clocks", "warning", said, "run chrony or another NTP client on all nodes", values)
    else:
        yield Finding("clocks", "ok", f"they differ by {difference * 1e3:.1f} ms at most", values=values)


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _exists(given: str, there: Mapping[str, Any]) -> bool:
    """NCCL takes beginnings of names, `=name` for a whole one, and `^name` for all others."""
    if given.startswith("^"):
        return True
    exact, names = given.startswith("="), given.removeprefix("=").split(",")
    return any(name == want or (not exact and name.startswith(want)) for want in names for name in there)
