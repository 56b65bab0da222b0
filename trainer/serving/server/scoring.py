"""Columns of raw values -> predictions, with the time that each part took.

One user, many candidates: columns with one row for all of a call's are transformed once, and what they became stands
for every row. Several such calls are transformed and scored together, as others are.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embeddings.features.bags import Bags
from embeddings.features.feature_transforms import Columns
from trainer.serving.bundle import Bundle
from trainer.serving.server.models import Version

WHERE = "request"  # where messages say that rows are from


@dataclass
class Durations:
    """Nanoseconds of a batch."""

    transform_ns: int = 0
    score_ns: int = 0


def predict(
    version: Version, columns: Mapping[str, pa.Array], durations: Durations, first_row: int = 0
) -> npt.NDArray[np.float32]:
    """Predictions [R, T] of columns of R rows. UserError: as `Bundle.predict`."""
    begin = time.perf_counter_ns()
    transformed = version.bundle.columns(pa.table(list(columns.values()), list(columns)), WHERE, first_row)
    predictions = _score(version.bundle, transformed, durations, begin, first_row)
    version.skew.count(version.bundle.features, columns, transformed)
    if version.log is not None:
        version.log.put(version, columns, predictions)
    return predictions


def _score(
    bundle: Bundle, transformed: Columns, durations: Durations, begin: int, first_row: int
) -> npt.NDArray[np.float32]:
    middle = time.perf_counter_ns()
    predictions = bundle.finite(bundle.score(transformed), WHERE, first_row)
    durations.transform_ns += middle - begin
    durations.score_ns += time.perf_counter_ns() - middle
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
    call_of_row = np.repeat(np.arange(len(columns[next(iter(shared))])), count)
    own = {name: column for name, column in columns.items() if name not in shared}
    once, each = version.halves(shared)
    for name in each.columns:  # a feature that reads shared columns beside others has them for each row
        if name in shared:
            own[name] = columns[name].take(pa.array(call_of_row))
    left = version.bundle.columns(pa.table({name: columns[name] for name in once.columns}), WHERE, 0, once)
    right = version.bundle.columns(pa.table(own), WHERE, first_row, each)
    dense = np.empty((len(call_of_row), version.bundle.transforms.dense_width), np.float32)
    for transforms, part in ((once, left.dense[call_of_row]), (each, right.dense)):
        for name, (first, last) in transforms.dense_spans.items():
            low, high = version.bundle.transforms.dense_spans[name]
            dense[:, low:high] = part[:, first:last]
    sparse = {name: _repeated(bags, count) for name, bags in left.sparse.items()} | right.sparse
    predictions = _score(version.bundle, Columns(sparse, dense), durations, begin, first_row)
    version.skew.count(once.features, columns, left, count)
    version.skew.count(each.features, own, right)
    if version.log is not None:
        rows = pa.array(call_of_row)
        version.log.put(version, {n: c.take(rows) if n in shared else c for n, c in columns.items()}, predictions)
    return predictions


def _repeated(bags: Bags, count: int) -> Bags:
    """Each bag `count` times."""
    if bags.is_scalar:
        weights = None if bags.weights is None else np.repeat(bags.weights, count)
        return Bags(np.repeat(bags.values, count), np.broadcast_to(np.int32(1), len(bags) * count), weights)
    ends = np.cumsum(bags.lengths)
    spans = list(zip(ends - bags.lengths, ends, strict=True))

    def tiled(of: npt.NDArray) -> npt.NDArray:
        return np.concatenate([np.tile(of[first:last], count) for first, last in spans])

    weights = None if bags.weights is None else tiled(bags.weights)
    return Bags(tiled(bags.values), np.repeat(bags.lengths, count), weights)
