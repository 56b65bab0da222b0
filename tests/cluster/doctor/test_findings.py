"""What is made of the answers of nodes: differences named by node, faults with what to do."""

from typing import Any

import pytest

from cluster.doctor.bandwidth import places_of
from cluster.doctor.findings import Finding, differing, named
from cluster.doctor.gpus import check_gpus
from cluster.doctor.machines import check_memory, check_open_files, check_processors
from cluster.doctor.network import check_clocks, check_interfaces, check_pairs, targets_of
from cluster.doctor.nodes import Node
from cluster.doctor.ray_settings import check_ray
from cluster.doctor.versions import check_code, check_versions
from configs.doctor_config import DoctorConfig
from configs.schema import LaunchConfig

SETTINGS = DoctorConfig()


def node(name: str, number: int, **resources: float) -> Node:
    return Node(f"id-{name}", name, f"10.0.0.{number}", 7000 + number, number == 1, resources)


NODES = [node("a", 1), node("b", 2), node("c", 3)]


def facts(**changed: Any) -> dict[str, Any]:
    """Of a node that is well."""
    return {
        "python": "3.11.7",
        "packages": {"torch": "2.13.0", "ray": "2.60.0", "extra": None},
        "code": {"cluster": {"path": "/project/cluster", "digest": "1234"}},
        "processor": {"model": "Xeon", "features": ["avx2", "avx512f"], "cores": 8},
        "memory_gib": 64.0,
        "shared_memory_gib": 32.0,
        "temporary": {"path": "/tmp", "gib": 100.0, "free_gib": 50.0},
        "open_files": 65_536,
        "gpus": [],
        "interfaces": {"lo": {"addresses": ["127.0.0.1"]}, "eth0": {"addresses": ["10.0.0.1", "10.0.0.2", "10.0.0.3"]}},
        "gloo": {"address": "10.0.0.1", "interface": "eth0", "why": "the host's name"},
        "nccl": "eth0",
        "environment": {},
        "token": None,
        "has_token": True,
        **changed,
    }


def cluster(**changed: Any) -> dict[str, dict[str, Any]]:
    """Three nodes, of which the last is changed."""
    return {"a": facts(), "b": facts(), "c": facts(**changed)}


def only(findings: Any, result: str) -> Finding:
    found = list(findings)
    assert [one.result for one in found].count(result) == 1, found
    one = next(one for one in found if one.result == result)
    assert result == "ok" or one.remedy
    return one


def test_names_of_many_nodes_are_cut_short() -> None:
    assert named("abcdef") == "a, b, c, d and 2 more"
    assert differing({"a": 1, "b": 2, "c": 1}) == "1 on a, c; 2 on b"
    assert differing({"a": 1, "b": 1}) is None


def test_versions() -> None:
    assert "torch 2.13.0" in only(check_versions(cluster()), "ok").said
    other = {"torch": "2.12.0", "ray": "2.60.0", "extra": None}
    assert only(check_versions(cluster(packages=other)), "error").said == "torch 2.13.0 on a, b; 2.12.0 on c"
    missing = {"torch": None, "ray": "2.60.0", "extra": None}
    assert only(check_versions(cluster(packages=missing)), "error").said == "torch 2.13.0 on a, b; none on c"
    assert "python 3.11.7 on a, b; 3.12.1 on c" in only(check_versions(cluster(python="3.12.1")), "error").said


def test_code() -> None:
    only(check_code(cluster()), "ok")
    other = {"cluster": {"path": "/project/cluster", "digest": "5678"}}
    assert only(check_code(cluster(code=other)), "error").said.endswith(" on c")
    assert "c: the package cluster" in only(check_code(cluster(code={"cluster": None})), "error").said


def test_machines() -> None:
    only(check_processors(cluster()), "ok")
    other = {"model": "EPYC", "features": ["avx2"], "cores": 8}
    assert "EPYC (avx2) on c" in only(check_processors(cluster(processor=other)), "warning").said
    assert "on c" in only(check_memory(cluster(shared_memory_gib=0.06), SETTINGS), "warning").said
    full = {"path": "/tmp", "gib": 10.0, "free_gib": 0.5}
    assert "0.5 GiB are free" in only(check_memory(cluster(temporary=full), SETTINGS), "warning").said
    assert "1,024 files on c" in only(check_open_files(cluster(open_files=1024), SETTINGS), "warning").said


def test_gpus() -> None:
    launch = LaunchConfig()
    h100 = {"name": "H100", "memory_gib": 80.0, "driver": "570.1"}
    with_gpus = {name: facts(gpus=[h100, h100]) for name in "abc"}
    nodes = [node(name, number, GPU=2) for number, name in enumerate("abc", 1)]
    assert only(check_gpus(cluster(), NODES, launch, "cpu"), "ok").said == "none"
    assert "2 x H100 a node" in only(check_gpus(with_gpus, nodes, launch, "cuda"), "ok").said
    only(check_gpus(cluster(), NODES, launch, "cuda"), "error")
    uncounted = [*nodes[:2], node("c", 3, GPU=1)]
    assert "Ray counts 1 GPUs" in only(check_gpus(with_gpus, uncounted, launch, "cuda"), "warning").said
    other = with_gpus | {"c": facts(gpus=[h100 | {"driver": "550.2"}] * 2)}
    assert "570.1 on a, b; 550.2 on c" in only(check_gpus(other, nodes, launch, "cuda"), "warning").said
    too_much = LaunchConfig(memory_gib=90)
    assert "memory_gib to 72" in only(check_gpus(with_gpus, nodes, too_much, "cuda"), "error").remedy


def test_what_a_node_has_to_reach() -> None:
    through_other = cluster(gloo={"address": "10.9.0.3", "interface": "eth1", "why": ""})
    there = targets_of("a", NODES, {"b": 5002, "c": 5003}, through_other)
    assert {(one["node"], one["address"], one["port"], one["what"]) for one in there} == {
        ("b", "10.0.0.2", 7002, "raylet"),
        ("b", "10.0.0.2", 5002, "ranks"),
        ("b", "10.0.0.1", 5002, "gloo"),
        ("c", "10.0.0.3", 7003, "raylet"),
        ("c", "10.0.0.3", 5003, "ranks"),
        ("c", "10.9.0.3", 5003, "gloo"),
    }


def test_ranks_are_where_workers_would_be() -> None:
    head, one, two = node("a", 1), node("b", 2, CPU=8, GPU=2), node("c", 3, CPU=1, GPU=2)
    places = {device: list(places_of([head, one, two], 6, device)) for device in ("CPU", "GPU")}
    assert places == {"CPU": ["b#0", "b#1", "b#2", "c#0"], "GPU": ["b#0", "b#1", "c#0", "c#1"]}
    assert places_of([head], 1, "CPU") == {}


def connection(to: str, what: str = "ranks", **said: Any) -> dict[str, Any]:
    return {"node": to, "address": "10.0.0.9", "port": 1, "what": what, **said}


@pytest.mark.parametrize(
    ("whats", "said"),
    [
        (("raylet", "ranks"), "b and c do not reach each other"),
        (("ranks",), "Ray's port is open, but others are closed, b to c"),
        (("gloo",), "gloo's connections do not get through, b to c"),
    ],
)
def test_pairs(whats: tuple[str, ...], said: str) -> None:
    well = {"a": [connection("b", ms=1), connection("c", ms=2)], "c": [connection("a", ms=1), connection("b", ms=1)]}
    assert "all 3 pairs" in only(check_pairs(well | {"b": [connection("a", ms=1), connection("c", ms=1)]}), "ok").said
    failed = [connection("c", what, problem="no answer in 5 s") for what in whats]
    found = only(check_pairs(well | {"b": [connection("a", ms=1), *failed]}), "error")
    assert said in found.said
    assert "no answer in 5 s" in found.said
    assert found.values == {"pairs": [["b", "c"]]}


def test_many_pairs_are_counted() -> None:
    names = [f"n{number:02}" for number in range(6)]
    lost = {one: [connection(other, problem="no route") for other in names if other != one] for one in names}
    found = list(check_pairs(lost))
    assert found[-1].said == "and 7 more pairs"
    assert len(found) == 9


def test_interfaces() -> None:
    only(check_interfaces(cluster(), NODES, "cpu"), "ok")
    loopback = {"address": "127.0.1.1", "interface": "lo", "why": "the host's name c"}
    found = only(check_interfaces(cluster(gloo=loopback), NODES, "cpu"), "error")
    assert "gloo would use 127.0.1.1 on c" in found.said
    assert found.remedy == "on c, before `ray start`: export GLOO_SOCKET_IFNAME=eth0"
    assert only(check_interfaces({"a": facts(gloo=loopback)}, NODES[:1], "cpu"), "ok")
    for given, result in (("eth", "ok"), ("=eth", "error"), ("^docker", "ok"), ("ib0,eth1", "error")):
        only(check_interfaces(cluster(environment={"NCCL_SOCKET_IFNAME": given}), NODES, "cuda"), result)


def test_clocks() -> None:
    reached = {"a": [connection("b", ms=1, ahead_s=-7.0, round_trip_ms=1.0)]}
    assert "the clock of a is 7.0 s ahead of that of b" in only(check_clocks(reached, SETTINGS), "warning").said
    slow = {"a": [connection("b", ms=1, ahead_s=2.0, round_trip_ms=3000.0)]}
    only(check_clocks(slow, SETTINGS), "ok")


def test_settings_of_ray() -> None:
    def found(**head: Any) -> list[Finding]:
        return list(check_ray(cluster() | {"a": facts(**head)}, NODES, SETTINGS))

    slow = only(found(), "warning")
    assert slow.said == "Ray's head notices a silent host after up to 65 s"
    quick = dict(word.split("=") for word in slow.remedy.split()[slow.remedy.split().index("export") + 1 :])
    assert [one.result for one in found(environment=quick)] == ["ok", "ok"]
    assert "no token is asked for on a" in only(found(environment=quick, has_token=False), "warning").said
    token = {"path": "/token", "others_read": True}
    assert "others on a may read /token" in only(found(environment=quick, token=token), "warning").said
