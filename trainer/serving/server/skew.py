"""Counts what requests bring for each feature: rows, nulls, IDs, unknown and clipped ones, as `shares` defines them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.schema import Feature
from embeddings.features.feature_transforms import Columns
from trainer.serving.server.board import FEATURE_COUNTS, Counters
from trainer.serving.shares import COUNTS, counts_of

if TYPE_CHECKING:
    from trainer.serving.server.host import Host

assert len(COUNTS) == FEATURE_COUNTS


class Skew:
    """Of one model in one process.

    Args:
        names: the features that have a place among the counters, in its order.
    """

    def __init__(self, names: Sequence[str], counters: Counters) -> None:
        self._counts = np.frombuffer(counters.of_features, np.int64).reshape(-1, FEATURE_COUNTS)
        self._place = {name: place for place, name in enumerate(names)}

    def count(
        self, features: Mapping[str, Feature], columns: Mapping[str, pa.Array], transformed: Columns, times: int = 1
    ) -> None:
        """Counts rows that were scored; each of them stands for `times`."""
        places = [self._place.get(name, -1) for name in features]
        counts = counts_of(features, columns, transformed) * times
        if min(places, default=0) < 0:
            known = [place >= 0 for place in places]
            places, counts = [place for place in places if place >= 0], counts[known]
        self._counts[places] += counts


def feature_counts(host: "Host", name: str) -> dict[str, npt.NDArray[np.int64]]:
    """Feature -> its COUNTS [5] since the start, of all processes."""
    totals = np.array(host.board.feature_totals(host.models.slot(name)), np.int64).reshape(-1, FEATURE_COUNTS)
    return dict(zip(host.models.features(name), totals, strict=False))
