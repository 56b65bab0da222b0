"""What a warm start took over and what begins fresh, in a few lines for the screen."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from configs.schema import Config
from trainer.warm_start.top import Match

_SHOWN = 4  # names in a line


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        step: of what was taken.
        tables: that were taken.
        matches: weights of the top that were asked for.
        stateless: names of what came without what an optimizer kept of it.
        steps: of the dense optimizer that are behind it.
    """

    config: Config
    there: Config
    step: int
    tables: Sequence[str]
    matches: Mapping[str, Match]
    stateless: Sequence[str]
    steps: int


def report(outcome: Outcome) -> str:
    """At most a dozen lines."""
    config, there = outcome.config, outcome.there
    warm = config.training.warm_start
    assert warm is not None, "there was one"
    whole = [name for name, match in outcome.matches.items() if match.is_whole]
    part = dict.fromkeys(name.rpartition(".")[0] for name, match in outcome.matches.items() if match.is_in_part)
    fresh = [f"top.{name}" for name, match in outcome.matches.items() if not match.copies]
    lines = {
        "tables": _names(_rows(name, config, there) for name in sorted(outcome.tables, key=_grew(config, there))),
        "top": f"{len(whole)} of {len(outcome.matches)} weights whole" if outcome.matches else "",
        "in part": f"{_names(part)}: new features, tasks and experts are fresh in it" if part else "",
        "fresh": _names([*_only(config, there), *fresh]),
        "only there": _names(_only(there, config)),
        "excluded": _names(warm.exclude),
        "optimizers": _optimizers(outcome),
    }
    head = f"warm start   {warm.run}, step {outcome.step:,}"
    return "\n".join([head, *(f"  {name:<12}{text}" for name, text in lines.items() if text)])


def _grew(config: Config, there: Config) -> Callable[[str], bool]:
    """A key that puts tables first that have more rows than they had."""
    return lambda name: config.tables[name].num_embeddings == there.tables[name].num_embeddings


def _rows(name: str, config: Config, there: Config) -> str:
    now, then = config.tables[name], there.tables[name]
    size = f"{then.num_embeddings:,} x {then.embedding_dim}"
    grows = now.num_embeddings - then.num_embeddings
    return f"{name} [{size}{f' + {grows:,} rows' if grows else ''}]"


def _only(one: Config, other: Config) -> list[str]:
    """Tables, features and tasks of `one` that `other` lacks."""
    sections = {
        section: (getattr(one, section), getattr(other, section)) for section in ("tables", "features", "tasks")
    }
    return [f"{section}.{name}" for section, (names, known) in sections.items() for name in names if name not in known]


def _optimizers(outcome: Outcome) -> str:
    behind = f"{outcome.steps:,} steps behind the dense one" if outcome.steps else "the dense one counts from 0"
    without = f"; without what they kept of {_names(outcome.stateless)}" if outcome.stateless else ""
    return f"{behind}{without}"


def _names(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more
