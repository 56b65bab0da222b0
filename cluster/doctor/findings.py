"""What a check found: how bad, what, and what to do about it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

Result = Literal["ok", "warning", "error", "skipped"]

_SHOWN = 4  # nodes that one line names


class Finding(NamedTuple):
    """A line of the report."""

    check: str
    """Such as "versions"; one check may find several things."""
    result: Result
    said: str
    remedy: str = ""
    """What to do, where it is not well."""
    values: Mapping[str, Any] = {}
    """What was measured, as JSON values."""

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "values": dict(self.values)}


def named(nodes: Iterable[str]) -> str:
    """A few of their names, and how many more."""
    names = list(nodes)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def by_value(values: Mapping[str, Any]) -> dict[Any, list[str]]:
    """Node -> value, turned round: value -> nodes; the most frequent first."""
    groups: dict[Any, list[str]] = {}
    for node, value in values.items():
        groups.setdefault(value, []).append(node)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def differing(values: Mapping[str, Any]) -> str | None:
    """`2.60.0 on a, b; 2.59.0 on c`, or None where all are equal."""
    groups = by_value(values)
    if len(groups) < 2:
        return None
    return "; ".join(f"{'none' if value is None else value} on {named(nodes)}" for value, nodes in groups.items())


def spread(numbers: Sequence[float]) -> str:
    """Sorted numbers as `2` or `2 to 8`."""
    first, last = numbers[0], numbers[-1]
    return f"{first:g}" if first == last else f"{first:g} to {last:g}"
