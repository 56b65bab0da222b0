"""Shows how many IDs the features' transforms drop: lookups that a model goes without."""

from collections.abc import Callable

import torch

from trainer.data.reading.reader import Reader
from trainer.ranks.collectives import sum_over_ranks


def dropped_shares(reader: Reader, device: torch.device) -> dict[str, float]:
    """Feature -> share of its IDs that were dropped so far, over all ranks, which call this together.

    Only of features with `out_of_range: drop`; 0 where no ID was read.
    """
    counts = reader.dropped.counts
    if not counts:
        return {}
    totals = sum_over_ranks(torch.tensor(list(counts.values()), dtype=torch.float64, device=device)).tolist()
    return {name: dropped / max(of, 1) for name, (dropped, of) in zip(counts, totals, strict=True)}


class DroppedWatch:
    """Scalars of the log lines, and a warning when a feature first drops an ID."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._warned: set[str] = set()

    def __call__(self, reader: Reader, device: torch.device) -> dict[str, float]:
        """Tag -> share; all ranks together."""
        shares = dropped_shares(reader, device)
        for name, share in shares.items():
            if share and name not in self._warned:
                self._warned.add(name)
                self._say(
                    f"warning: features.{name}: {share:.2%} of its IDs are outside the table, and dropped "
                    f"(out_of_range: drop)"
                )
        return {f"data/dropped_share/{name}": share for name, share in shares.items()}
