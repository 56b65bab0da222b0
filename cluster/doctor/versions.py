"""Whether all nodes have the same Python, packages and code."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.doctor.findings import Finding, differing, named

Facts = Mapping[str, Mapping[str, Any]]
"""Node's name -> what it says of itself."""


def check_versions(facts: Facts) -> Iterator[Finding]:
    """Of Python and of packages: differences named by node."""
    are_equal = True
    pythons = {node: one["python"] for node, one in facts.items()}
    if said := differing(pythons):
        are_equal = False
        yield Finding(
            "versions", "error", f"python {said}", "install one version everywhere: one image, one environment"
        )
    for package in dict.fromkeys(name for one in facts.values() for name in one["packages"]):
        versions = {node: one["packages"][package] for node, one in facts.items()}
        if said := differing(versions):
            are_equal = False
            yield Finding("versions", "error", f"{package} {said}", f"install one version of {package} everywhere")
    if are_equal:
        first = next(iter(facts.values()))
        known = ", ".join(f"{name} {version}" for name, version in first["packages"].items() if version)
        yield Finding("versions", "ok", f"python {first['python']}, {known}", values=dict(first["packages"]))


def check_code(facts: Facts) -> Iterator[Finding]:
    """Whether every node imports the same files of this project."""
    without = [node for node, one in facts.items() if not all(one["code"].values())]
    if without:
        lacking = next(name for node in without for name, found in facts[node]["code"].items() if not found)
        said = f"{named(without)}: the package {lacking} of this project is not found"
        remedy = "put the project at the same path on all nodes, use one image, or submit with --working-dir"
        yield Finding("code", "error", said, remedy)
    digests = {node: _digest(one["code"]) for node, one in facts.items() if node not in without}
    if said := differing(digests):
        yield Finding("code", "error", f"this project's files differ: {said}", "bring one version to all nodes")
    elif digests and not without:
        node, digest = next(iter(digests.items()))
        place = Path(next(iter(facts[node]["code"].values()))["path"]).parent
        yield Finding("code", "ok", f"the same files everywhere (digest {digest}, {place})", values={"digest": digest})


def _digest(code: Mapping[str, Mapping[str, str]]) -> str:
    """Of all packages together."""
    return hashlib.sha256("".join(one["digest"] for one in code.values()).encode()).hexdigest()[:8]
