"""How fast ranks exchange what they train with: a real group over all nodes, as training forms it."""

from collections.abc import Iterator, Mapping
from typing import Any

import ray

from cluster.doctor.findings import Finding, by_value, named
from cluster.doctor.nodes import Node, actors_on, ask
from cluster.doctor.ranks import Rank
from configs.doctor_config import DoctorConfig


def check_bandwidth(
    nodes: list[Node], workers: int, device: str, variables: Mapping[str, str], settings: DoctorConfig
) -> Iterator[Finding]:
    """Starts as many ranks on each node as training would; on GPUs, one each."""
    hosts = places_of(nodes, workers, "GPU" if device == "cuda" else "CPU")
    if len(hosts) < 2:
        yield Finding("bandwidth", "skipped", "one rank has nobody to exchange with")
        return
    ranks = {
        place: next(iter(actors_on(Rank, [node], variables, gpus=int(device == "cuda")).values()))
        for place, node in hosts.items()
    }
    try:
        yield from _measured(ranks, hosts, device, settings)
    finally:
        for actor in ranks.values():
            ray.kill(actor)


def _measured(
    ranks: Mapping[str, Any], hosts: Mapping[str, Node], device: str, settings: DoctorConfig
) -> Iterator[Finding]:
    ready = ask(ranks, lambda _, actor: actor.prepare.remote(), settings.bandwidth_s)
    if ready.problems:
        yield from _failed(ready.problems, hosts, "ranks do not start")
        return
    first = next(iter(ranks))
    backend = "nccl" if device == "cuda" else "gloo"
    store = f"tcp://{hosts[first].address}:{ready.values[first]}"
    numbers = {place: number for number, place in enumerate(ranks)}
    fixed = (len(ranks), backend, store, settings.bandwidth_mib, settings.bandwidth_s / 2)
    done = ask(ranks, lambda place, actor: actor.measure.remote(numbers[place], *fixed), settings.bandwidth_s)
    if done.problems:
        yield from _failed(done.problems, hosts, f"{backend} does not connect the ranks")
        return
    values = {key: min(one[key] for one in done.values.values()) for key in done.values[first]}
    yield _speeds(values | {"ranks": len(ranks), "backend": backend, "mib": settings.bandwidth_mib}, settings)


def _speeds(values: Mapping[str, Any], settings: DoctorConfig) -> Finding:
    reduce, exchange = values["all_reduce_gb_s"], values["all_to_all_gb_s"]
    said = (
        f"{values['ranks']} ranks over {values['backend']}, {values['mib']} MiB: all_reduce {reduce:.2f} GB/s, "
        f"all_to_all {exchange:.2f} GB/s"
    )
    for name, speed, least in (
        ("all_reduce", reduce, settings.min_all_reduce_gb_s),
        ("all_to_all", exchange, settings.min_all_to_all_gb_s),
    ):
        if speed < least:
            remedy = f"less than doctor.min_{name}_gb_s={least:g}: look at the interface that is used, and its speed"
            return Finding("bandwidth", "warning", said, remedy, values)
    return Finding("bandwidth", "ok", said, values=values)


def _failed(problems: Mapping[str, str], hosts: Mapping[str, Node], what: str) -> Iterator[Finding]:
    on_node = {hosts[place].name: problem for place, problem in problems.items()}
    for problem, nodes in by_value(on_node).items():
        remedy = "the lines above may say why; else see that node's logs below Ray's folder"
        yield Finding("bandwidth", "error", f"{what}, {named(nodes)}: {problem}", remedy)


def places_of(nodes: list[Node], workers: int, resource: str) -> dict[str, Node]:
    """A place for each rank -> its node; a head that carries the driver alone has none."""
    room = [(node, int(node.resources.get(resource, 0))) for node in nodes if node.resources.get(resource, 0) >= 1]
    each = -(-workers // max(len(room), 1))
    return {f"{node.name}#{i}": node for node, most in room for i in range(min(each, most))}
