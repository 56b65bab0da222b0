"""The nodes of a cluster, an actor on each, and answers that do not keep anybody waiting."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.doctor.findings import Finding, named
from cluster.failures import cause_of


class Node(NamedTuple):
    """As Ray lists it."""

    id: str
    name: str
    """Its host's name, with the address where two have the same."""
    address: str
    raylet_port: int
    is_head: bool
    resources: Mapping[str, float]


class Answers(NamedTuple):
    """Of all nodes to one question."""

    values: dict[str, Any]
    """Node's name -> what it said."""
    problems: dict[str, str]
    """Node's name -> why it said nothing."""


def listed() -> tuple[list[Node], list[Node]]:
    """Nodes that are alive, the head first, and those that were lost."""
    there = ray.nodes()
    hosts = [one["NodeManagerHostname"] for one in there if one["Alive"]]
    nodes = [_node(one, hosts.count(one["NodeManagerHostname"]) > 1) for one in there]
    alive = [node for node, one in zip(nodes, there, strict=True) if one["Alive"]]
    addresses = {node.address for node in alive}
    lost = [node for node, one in zip(nodes, there, strict=True) if not one["Alive"] and node.address not in addresses]
    return sorted(alive, key=lambda node: (not node.is_head, node.name)), lost


def _node(one: Mapping[str, Any], is_shared: bool) -> Node:
    host, address, resources = one["NodeManagerHostname"], one["NodeManagerAddress"], one["Resources"]
    name = f"{host} ({address})" if is_shared or not one["Alive"] else host
    return Node(one["NodeID"], name, address, one["NodeManagerPort"], "node:__internal_head__" in resources, resources)


def actors_on(kind: Any, nodes: Iterable[Node], variables: Mapping[str, str], gpus: int = 0) -> dict[str, Any]:
    """Node's name -> an actor there. variables: of its process; none in a cluster whose processes have them."""
    options: dict[str, Any] = {"runtime_env": {"env_vars": dict(variables)}} if variables else {}
    return {
        node.name: kind.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False), num_gpus=gpus, **options
        ).remote()
        for node in nodes
    }


def ask(actors: Mapping[str, Any], question: Callable[[str, Any], Any], timeout_s: float) -> Answers:
    """Calls `question(name, actor)`, which gives a reference, for each; waits for all together."""
    references = {question(name, actor): name for name, actor in actors.items()}
    answered, _ = ray.wait(list(references), num_returns=len(references), timeout=timeout_s, fetch_local=False)
    answers = Answers({}, {})
    for reference, name in references.items():
        if reference not in answered:
            answers.problems[name] = f"no answer in {timeout_s:g} s"
            continue
        try:
            answers.values[name] = ray.get(reference, timeout=timeout_s)
        except Exception as error:  # of the node's: it is what the check is about
            answers.problems[name] = cause_of(error).text
    return answers


def check_nodes(alive: list[Node], lost: list[Node], silent: Mapping[str, str]) -> Iterable[Finding]:
    """silent: nodes that are alive for Ray, but did not answer."""
    cpus, gpus = (sum(node.resources.get(kind, 0) for node in alive) for kind in ("CPU", "GPU"))
    many = "1 node" if len(alive) == 1 else f"{len(alive)} nodes"
    for name, problem in silent.items():
        remedy = "look at that node: is it busy, does Python start there, are the ports of Ray's workers open?"
        yield Finding("nodes", "error", f"{name} is part of the cluster, but does not answer: {problem}", remedy)
    if lost:
        said = f"lost by the cluster: {named(node.name for node in lost)}"
        yield Finding("nodes", "warning", said, "start Ray there again, if they should take part")
    values = {"nodes": len(alive), "cpus": cpus, "gpus": gpus}
    yield Finding("nodes", "ok", f"{many}, {cpus:g} CPUs, {gpus:g} GPUs", values=values)
