"""Columns of raw values -> predictions, with the time that each part took.

One user, many candidates: columns with one row for all of a call's are transformed once, and what they became stands
for every row.
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
from trainer.serving.server.calls import Call
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
    version: Version, call: Call, start: int, stop: int, durations: Durations
) -> npt.NDArray[np.float32]:
    """Predictions of rows [start, stop) of a call with shared columns."""
    begin = time.perf_counter_ns()
    columns, count = call.join([call]), stop - start
    own = {name: column.slice(start, count) for name, column in columns.items() if name not in call.shared}
    once, each = version.halves(call.shared)
    for name in each.columns:  # a feature that reads shared columns beside others has them for each row
        if name in call.shared:
            own[name] = columns[name].take(pa.array(np.zeros(count, np.int64)))
    left = version.bundle.columns(pa.table({name: columns[name] for name in once.columns}), WHERE, 0, once)
    right = version.bundle.columns(pa.table(own), WHERE, start, each)
    dense = np.empty((count, version.bundle.transforms.dense_width), np.float32)
    for transforms, part in ((once, left), (each, right)):
        for name, (first, last) in transforms.dense_spans.items():
            low, high = version.bundle.transforms.dense_spans[name]
            dense[:, low:high] = part.dense[:, first:last]
    sparse = {name: _repeated(bags, count) for name, bags in left.sparse.items()} | right.sparse
    predictions = _score(version.bundle, Columns(sparse, dense), durations, begin, start)
    version.skew.count(once.features, columns, left, count)
    version.skew.count(each.features, own, right)
    if version.log is not None:
        version.log.put(version, _for_each_row(columns, call.shared, start, count), predictions)
    return predictions


def _for_each_row(columns: Mapping[str, pa.Array], shared: frozenset[str], start: int, count: int) -> dict:
    first = pa.array(np.zeros(count, np.int64))
    return {n: c.take(first) if n in shared else c.slice(start, count) for n, c in columns.items()}


def _repeated(bags: Bags, count: int) -> Bags:
    weights = None if bags.weights is None else np.tile(bags.weights, count)
    lengths = np.broadcast_to(np.int32(1), count) if bags.is_scalar else np.full(count, bags.lengths[0], np.int32)
    return Bags(np.tile(bags.values, count), lengths, weights)
