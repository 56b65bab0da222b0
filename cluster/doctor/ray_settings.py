"""How Ray was started: whether strangers are kept out, and how soon the head notices that a host is lost."""

from collections.abc import Iterator, Mapping

from cluster.doctor.findings import Finding, named
from cluster.doctor.nodes import Node
from cluster.doctor.versions import Facts
from configs.doctor_config import DoctorConfig

_OWN = {"period_ms": 3000, "timeout_ms": 10_000, "failure_threshold": 5}
"""What Ray 2.60 takes under RAY_health_check_... when nothing is set."""
_QUICK = {"period_ms": 1000, "timeout_ms": 2000, "failure_threshold": 3}


def check_ray(facts: Facts, nodes: list[Node], settings: DoctorConfig) -> Iterator[Finding]:
    yield from _token(facts, nodes)
    head = next((node.name for node in nodes if node.is_head), "")
    if len(nodes) > 1 and head in facts:
        yield _detection(facts[head]["environment"], settings)


def _token(facts: Facts, nodes: list[Node]) -> Iterator[Finding]:
    without = [node for node, one in facts.items() if not one["has_token"]]
    if without and len(nodes) > 1:
        said = f"no token is asked for on {named(without)}: whoever reaches Ray's ports runs code there"
        remedy = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH on all nodes and clients before `ray start`"
        yield Finding("token", "warning", said, remedy)
        return
    readable = [node for node, one in facts.items() if one["has_token"] and (one["token"] or {}).get("others_read")]
    if readable:
        said = f"others on {named(readable)} may read {facts[readable[0]]['token']['path']}"
        yield Finding("token", "warning", said, "chmod 600, and make a new token if strangers were there")
        return
    yield Finding("token", "ok", "none is asked for, on one node" if without else "asked for")


def _detection(environment: Mapping[str, str], settings: DoctorConfig) -> Finding:
    """As long as a host that does not answer may stay in the cluster; one that refuses is lost sooner."""
    period, timeout, threshold = (int(environment.get(f"RAY_health_check_{key}", own)) for key, own in _OWN.items())
    seconds = threshold * (period + timeout) / 1000
    said = f"Ray's head notices a silent host after up to {seconds:.0f} s"
    if seconds <= settings.max_detection_s:
        return Finding("detection", "ok", said, values={"seconds": seconds})
    better = " ".join(f"RAY_health_check_{key}={value}" for key, value in _QUICK.items())
    return Finding("detection", "warning", said, f"before `ray start --head`: export {better}", {"seconds": seconds})
