"""What ranks kept of the steps since the last log line, from a saved state."""

from collections.abc import Callable

from torch import Tensor

from trainer.checkpoint.chain import State
from trainer.checkpoint.link_load import whole_tensors
from trainer.checkpoint.regions import Regions
from trainer.run.saved_names import WINDOW, section


def windows(state: State) -> list[dict[str, Tensor]]:
    """What each rank kept of the steps since the last log line; empty where a former version saved nothing of it."""
    by_rank: dict[int, dict[str, Tensor]] = {}
    for name, value in _whole(state, lambda name: section(name) == WINDOW).items():
        _, rank, inside = name.split("/", 2)
        by_rank.setdefault(int(rank), {})[inside] = value
    return [by_rank[rank] for rank in sorted(by_rank)]


def _whole(state: State, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Of tensors that are not saved by rows."""
    if state.links:
        end = state.links[-1]
        return dict(whole_tensors(end, {entry.name for entry in end.whole if wanted(entry.name)}))
    with Regions(state.base) as stored:
        return {name: stored.whole(name) for name in stored.names if wanted(name)}
