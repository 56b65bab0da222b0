"""GPUs of all nodes: kinds and drivers, whether Ray counts as many as there are, whether the memory is enough."""

from collections.abc import Iterator, Mapping
from typing import Any

from cluster.doctor.findings import Finding, differing, spread
from cluster.doctor.nodes import Node
from cluster.doctor.versions import Facts
from configs.schema import LaunchConfig

_Gpus = Mapping[str, list[dict[str, Any]]]


def check_gpus(facts: Facts, nodes: list[Node], launch: LaunchConfig, device: str) -> Iterator[Finding]:
    """device: what the run would train on."""
    there = {node: one["gpus"] for node, one in facts.items() if one["gpus"]}
    if not there:
        yield Finding("gpus", "error", "none", "see nvidia-smi") if device == "cuda" else Finding("gpus", "ok", "none")
        return
    found = [*_differences(there), *_uncounted(facts, nodes, device), *_memory(there, launch, device)]
    yield from found
    if not found:
        one = next(iter(there.values()))[0]
        counts = sorted({len(gpus) for gpus in there.values()})
        said = f"{spread(counts)} x {one['name']} a node, {one['memory_gib']:g} GiB, driver {one['driver']}"
        yield Finding("gpus", "ok", said)


def _differences(there: _Gpus) -> Iterator[Finding]:
    for what, label in (("name", "GPUs"), ("driver", "drivers"), ("memory_gib", "GiB of a GPU")):
        values = {node: ", ".join(sorted({str(gpu[what]) for gpu in gpus})) for node, gpus in there.items()}
        if said := differing(values):
            remedy = "use nodes of one kind: the slowest sets the pace"
            yield Finding("gpus", "warning", f"{label} differ: {said}", remedy)


def _uncounted(facts: Facts, nodes: list[Node], device: str) -> Iterator[Finding]:
    for node in nodes:
        if node.name not in facts:
            continue
        counted, seen = int(node.resources.get("GPU", 0)), len(facts[node.name]["gpus"])
        if counted > seen or (device == "cuda" and counted < seen):
            said = f"{node.name}: Ray counts {counted} GPUs, nvidia-smi shows {seen}"
            yield Finding("gpus", "warning", said, "start Ray there again, with --num-gpus if need be")


def _memory(there: _Gpus, launch: LaunchConfig, device: str) -> Iterator[Finding]:
    smallest = min(gpu["memory_gib"] for gpus in there.values() for gpu in gpus)
    if device == "cuda" and launch.memory_gib and launch.memory_gib > smallest:
        said = f"launch.memory_gib={launch.memory_gib:g}, but a GPU has {smallest:g} GiB"
        yield Finding("gpus", "error", said, f"lower launch.memory_gib to {int(smallest * 0.9)}")
