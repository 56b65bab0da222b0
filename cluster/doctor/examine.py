"""The whole way of `doctor`: joins the cluster, asks every node, compares, lets them reach each other, measures.

Each question has a deadline, so that a node that hangs is named and the others are looked at all the same. Findings
come as they are made: whoever reads them can stop.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ray
import ray.cloudpickle

from cluster.connecting import connect
from cluster.doctor import interfaces, node_facts, on_node, ranks, reaching
from cluster.doctor.bandwidth import check_bandwidth
from cluster.doctor.findings import Finding, by_value, named
from cluster.doctor.folders import check_folder
from cluster.doctor.gpus import check_gpus
from cluster.doctor.machines import check_memory, check_open_files, check_processors
from cluster.doctor.network import check_clocks, check_interfaces, check_pairs, targets_of
from cluster.doctor.nodes import Node, actors_on, ask, check_nodes, listed
from cluster.doctor.on_node import Examiner
from cluster.doctor.ray_settings import check_ray
from cluster.doctor.reaching import AT_ONCE, reach_all
from cluster.doctor.versions import Facts, check_code, check_versions
from cluster.imports import python_path
from cluster.room import check_room, device_of
from configs.doctor_config import DoctorConfig
from configs.errors import UserError
from configs.schema import LaunchConfig

_SENT = (interfaces, node_facts, reaching, on_node, ranks)
_GRACE_S = 10.0  # of an answer, beyond the time that is spent on the node itself
_GONE = 16  # lost nodes that are tried


class Asked(NamedTuple):
    """What the caller wants to know of its cluster; nothing here knows what is trained."""

    packages: Sequence[str]
    """Whose versions must be the same."""
    code: Sequence[str]
    """Import packages of this project."""
    folders: Mapping[str, str]
    """Key of the config -> a folder that all nodes write."""
    looks: Mapping[str, tuple[Callable[[Any], str], Any]] = {}
    """What -> a function and its argument: called on every node, it must say the same everywhere."""
    judges: Sequence[Callable[[Facts], Iterator[Finding]]] = ()
    """What the caller makes of what nodes say of themselves."""


def examine(
    asked: Asked, launch: LaunchConfig, settings: DoctorConfig, environment: Mapping[str, str]
) -> Iterator[Finding]:
    """Raises UserError: no cluster answers at the address that is meant.

    environment: variables of the workers' processes.
    """
    environment = {**environment, "PYTHONPATH": python_path()}
    connection = connect(launch, environment)
    for module in _SENT:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        yield from _findings(asked, launch, settings, {} if connection.is_private else environment)
    finally:
        if connection.is_new:
            ray.shutdown()


def _findings(
    asked: Asked, launch: LaunchConfig, settings: DoctorConfig, variables: Mapping[str, str]
) -> Iterator[Finding]:
    alive, lost = listed()
    examiners = actors_on(Examiner, alive, variables)
    question = (list(asked.packages), list(asked.code))
    said = ask(examiners, lambda _, one: one.facts.remote(*question), settings.answer_s)
    facts: Facts = {node.name: said.values[node.name] for node in alive if node.name in said.values}
    answering = {name: examiners[name] for name in facts}
    yield from check_nodes(alive, lost, said.problems)
    device = device_of(launch)
    pairs = list(_connections(answering, alive, facts, device, settings))
    yield from pairs
    yield from _lost_ones(lost, settings)
    if not facts:
        return
    yield from _of_machines(asked, launch, settings, facts, alive, device)
    for title, path in asked.folders.items():
        yield from check_folder(title, path, answering, settings)
    for title, (function, argument) in asked.looks.items():
        yield from _look(title, function, argument, answering, settings)
    if not settings.bandwidth_mib:
        yield Finding("bandwidth", "skipped", "doctor.bandwidth_mib=0")
    elif said.problems or any(one.result == "error" and one.check in ("connections", "interfaces") for one in pairs):
        yield Finding("bandwidth", "skipped", "first correct the connections above")
    else:
        yield from check_bandwidth(alive, launch.workers, device, variables, settings)


def _connections(
    answering: Mapping[str, Any], alive: list[Node], facts: Facts, device: str, settings: DoctorConfig
) -> Iterator[Finding]:
    """Every node to every other."""
    address = {node.name: node.address for node in alive}
    listening = ask(answering, lambda name, one: one.listen.remote(address[name]), settings.answer_s).values
    targets = {name: targets_of(name, alive, listening, facts) for name in answering}
    wait = settings.connect_s
    rounds = 1 + max(map(len, targets.values()), default=0) // AT_ONCE
    deadline = rounds * wait + _GRACE_S
    reached = ask(answering, lambda name, one: one.reach.remote(targets[name], wait), deadline).values
    yield from check_pairs(reached)
    yield from check_interfaces(facts, alive, device)
    yield from check_clocks(reached, settings)


def _lost_ones(lost: list[Node], settings: DoctorConfig) -> Iterator[Finding]:
    """From here to nodes that Ray has lost."""
    gone = [{"node": node.name, "address": node.address, "port": node.raylet_port, "what": "raylet"} for node in lost]
    for one in reach_all(gone[:_GONE], settings.connect_s):
        if "problem" in one and "refused" not in one["problem"]:
            said = f"this node does not reach {one['node']}, which the cluster lost: {one['problem']}"
            yield Finding("connections", "warning", said, "look at the machine, and at the way to it")


def _of_machines(
    asked: Asked, launch: LaunchConfig, settings: DoctorConfig, facts: Facts, alive: list[Node], device: str
) -> Iterator[Finding]:
    yield from check_versions(facts)
    yield from check_code(facts)
    for judge in asked.judges:
        yield from judge(facts)
    yield from check_processors(facts)
    yield from check_gpus(facts, alive, launch, device)
    yield from check_memory(facts, settings)
    yield from check_open_files(facts, settings)
    yield from check_ray(facts, alive, settings)
    yield _workers(launch, device)


def _workers(launch: LaunchConfig, device: str) -> Finding:
    """Whether there is room for all workers, or for the fewest that may be."""
    fewest = launch.min_workers or launch.workers
    try:
        check_room(launch, device)
        check_room(launch.model_copy(update={"min_workers": None}), device)
    except UserError as error:
        said, remedy = str(error).splitlines()
        is_enough = f" {fewest} workers " not in said  # the second call found it
        return Finding("workers", "warning" if is_enough else "error", said, remedy)
    return Finding("workers", "ok", f"there is room for launch.workers={launch.workers} on {device}")


def _look(
    title: str, function: Callable[[Any], str], argument: Any, examiners: Mapping[str, Any], settings: DoctorConfig
) -> Iterator[Finding]:
    """What all nodes see of something must be the same."""
    answers = ask(examiners, lambda _, one: one.look.remote(function, argument), settings.folder_s + _GRACE_S)
    for problem, nodes in by_value(answers.problems).items():
        yield Finding("data", "error", f"{title}: {named(nodes)} cannot read it: {problem}", "see that all nodes can")
    groups = by_value(answers.values)
    if len(groups) > 1:
        said = "; ".join(f"{named(nodes)}: {value}" for value, nodes in groups.items())
        yield Finding(
            "data", "error", f"{title} is not the same everywhere: {said}", "mount one file system on all nodes"
        )
    elif groups and not answers.problems:
        yield Finding("data", "ok", f"{title}: {next(iter(groups))}")
