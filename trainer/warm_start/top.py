"""Which weights of the top are found in another run's, whole or in part. Decides by names and sizes; reads nothing.

A block of a weight belongs to a feature, an expert or a task (`models.places`). A block that the other run has in the
same size is taken over; one that it lacks begins fresh; one of another size is a mismatch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from models.places import Block, Part, Slices


@dataclass(frozen=True)
class Copy:
    """A block that is taken over: from a weight of the other run into one of this run's."""

    source: str
    source_at: Slices
    at: Slices


@dataclass
class Match:
    """What is found of one weight.

    missing: blocks that the other run lacks. mismatches: blocks of other sizes, in words.
    """

    copies: list[Copy] = field(default_factory=list)
    missing: int = 0
    mismatches: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return bool(self.copies) and not self.missing

    @property
    def is_in_part(self) -> bool:
        return bool(self.copies) and self.missing > 0


def match_top(
    here: Mapping[Block, Part], there: Mapping[Block, Part], takes: Callable[[str], bool]
) -> dict[str, Match]:
    """The weights of this run's top that are to be taken -> what is found of each."""
    found: dict[str, Match] = {}
    for block, part in here.items():
        if not takes(part.weight):
            continue
        match, source = found.setdefault(part.weight, Match()), there.get(block)
        if source is None:
            match.missing += 1
        elif (sizes := _sizes(part.slices)) != _sizes(source.slices):
            match.mismatches.append(f"{_who(block)} has {sizes}, and {_sizes(source.slices)} there")
        else:
            match.copies.append(Copy(source.weight, source.slices, part.slices))
    return found


def _sizes(slices: Slices) -> list[int]:
    return [one.stop - one.start for one in slices]


def _who(block: Block) -> str:
    """Whose a block is, in words: without the weight's own name."""
    return " ".join(dict.fromkeys(_words(one) for one in block[1:] if one is not None)) or "it"


def _words(who: object) -> str:
    if isinstance(who, tuple | frozenset):
        return " ".join(dict.fromkeys(_words(one) for one in who if one is not None))
    return str(who)
