"""Which states a run can go on from: a base, and the links behind it. Pure functions of what the marks say.

           merged from D2
     base 100 . . . . . base 120
        |                  |
        D1 --- D2 ---------+--- D3 --- D4        a chain can end where the whole parts are kept: D2, D4
        110    120             130    140

The links behind a base that was merged stand behind the base before it too, so where one base is damaged nothing is
lost as long as the one before is kept. Reading and checking files is others' business. Imports no torch.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.checkpoint.attempts import last_step_of
from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.link_files import Link
from trainer.run.position import Position


@dataclass(frozen=True)
class State:
    """A state that was saved: that of the last link, or of the base where there is none."""

    base: Checkpoint
    links: tuple[Link, ...] = ()

    @property
    def end(self) -> Checkpoint | Link:
        return self.links[-1] if self.links else self.base

    @property
    def position(self) -> Position:
        return self.end.position

    @property
    def step(self) -> int:
        return self.position.step

    @property
    def extra(self) -> dict[str, Any]:
        return self.end.extra

    @property
    def size(self) -> int:
        return self.base.size + sum(link.size for link in self.links)

    def __str__(self) -> str:
        return str(self.end.folder)


def newest_state(bases: Iterable[Checkpoint], links: Collection[Link], went_on_from: Mapping[int, int]) -> State | None:
    """The state of the highest step, on the newest base that leads to it; None where there is no base."""
    states = [longest(base, links, went_on_from) for base in bases if counts(base, went_on_from)]
    return max(states, key=lambda state: (state.step, state.base.step), default=None)


def longest(base: Checkpoint, links: Iterable[Link], went_on_from: Mapping[int, int]) -> State:
    """The longest chain behind `base` that can end where it ends."""
    followers: dict[str, list[Link]] = {}
    for link in links:
        if counts(link, went_on_from) and link.step > base.step:
            followers.setdefault(link.predecessor, []).append(link)
    chain: list[Link] = []
    at: Sequence[str] = [base.digest, *([base.merged_from] if base.merged_from else [])]
    while next_ones := [link for digest in at for link in followers.get(digest, [])]:
        # Of one attempt, the earlier was completed though it was told of a failure, and nothing follows it.
        chain.append(max(next_ones, key=lambda link: (link.attempt, link.step)))
        at = [chain[-1].digest]
    while chain and not chain[-1].ends:
        chain.pop()
    return State(base, tuple(chain))


def all_states(bases: Iterable[Checkpoint], links: Collection[Link], went_on_from: Mapping[int, int]) -> list[State]:
    """Every state that can be taken, one for each step, by step; on the newest base that leads to it."""
    found: dict[int, State] = {}
    for base in sorted(bases, key=lambda base: base.step):
        if not counts(base, went_on_from):
            continue
        chain = longest(base, links, went_on_from).links
        ends = [State(base), *(State(base, chain[: n + 1]) for n, link in enumerate(chain) if link.ends)]
        found |= {state.step: state for state in ends}
    return [found[step] for step in sorted(found)]


def counts(part: Checkpoint | Link, went_on_from: Mapping[int, int]) -> bool:
    """Whether it is part of the run: not what an older attempt wrote beyond the step that a newer one went on from."""
    return part.step <= last_step_of(part.attempt, went_on_from)
