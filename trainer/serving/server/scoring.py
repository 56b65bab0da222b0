"""Columns of raw values -> predictions, with the time that each part took.

One user, many candidates: columns with one row for all of a call's are transformed and looked up once. Several such
calls are transformed and scored together, as others are.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trainer.serving.server.models import Version

WHERE = "request"  # where messages say that rows are from


@dataclass
class Durations:
    """Nanoseconds of a batch."""

    transform_ns: int = 0
    score_ns: int = 0

    def add(self, begin: int, middle: int) -> None:
        """Transformed from `begin` to `middle`, and scored until now."""
        self.transform_ns += middle - begin
        self.score_ns += time.perf_counter_ns() - middle


def predict(
    version: Version, columns: Mapping[str, pa.Array], durations: Durations, first_row: int = 0
) -> npt.NDArray[np.float32]:
    """Predictions [R, T] of columns of R rows. UserError: as `Bundle.predict`."""
    begin = time.perf_counter_ns()
    transformed = version.bundle.columns(pa.table(list(columns.values()), list(columns)), WHERE, first_row)
    middle = time.perf_counter_ns()
    predictions = version.bundle.finite(version.bundle.score(transformed), WHERE, first_row)
    durations.add(begin, middle)
    version.skew.count(version.bundle.features, columns, transformed)
    if version.log is not None:
        version.log.put(version, columns, predictions)
    return predictions


def predict_shared(
    version: Version,
    columns: Mapping[str, pa.Array],
    shared: frozenset[str],
    count: int,
    durations: Durations,
    first_row: int = 0,
) -> npt.NDArray[np.float32]:
    """Predictions [R, T] of calls with shared columns and as many rows, scored together.

    Args:
        columns: those of `shared` have one row per call, the others R.
        count: rows of each call.
    """
    begin = time.perf_counter_ns()
    bundle, halves = version.bundle, version.halves(shared)
    call_of_row = np.repeat(np.arange(len(columns[next(iter(shared))])), count)
    own = {name: column for name, column in columns.items() if name not in shared}
    for name in halves.each.columns:  # a feature that reads shared columns beside others has them for each row
        if name in shared:
            own[name] = columns[name].take(pa.array(call_of_row))
    once = bundle.columns(pa.table({name: columns[name] for name in halves.once.columns}), WHERE, 0, halves.once)
    each = bundle.columns(pa.table(own), WHERE, first_row, halves.each)
    middle = time.perf_counter_ns()
    predictions = bundle.finite(bundle.score_shared(halves, once, each, call_of_row), WHERE, first_row)
    durations.add(begin, middle)
    version.skew.count(halves.once.features, columns, once, count)
    version.skew.count(halves.each.features, own, each)
    if version.log is not None:
        rows = pa.array(call_of_row)
        version.log.put(version, {n: c.take(rows) if n in shared else c for n, c in columns.items()}, predictions)
    return predictions
