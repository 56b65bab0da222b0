"""Statistics of a column: the same however its rows are cut into batches, and the same as counting at once."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.features.xxh64 import hash_integers
from trainer.data.inspection.column_profile import KEPT, ColumnProfile, DistinctCount

CUTS = st.lists(st.integers(0, 40), max_size=4)


def profile(array: pa.Array, cuts: list[int]) -> dict:
    """What a profile says of an array that came in pieces."""
    column, edges = ColumnProfile(), sorted({0, len(array), *(min(cut, len(array)) for cut in cuts)})
    for first, last in itertools.pairwise(edges):
        column.add(array.slice(first, last - first))
    values = column.to_json()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    return values


@given(st.lists(st.none() | st.integers(-(2**62), 2**62), min_size=1, max_size=40), CUTS)
def test_integers(values: list[int | None], cuts: list[int]) -> None:
    found, given_values = profile(pa.array(values, pa.int64()), cuts), [v for v in values if v is not None]
    assert found["rows"] == len(values)
    assert found["null_rate"] == values.count(None) / len(values)
    assert found["distinct"] == (len(set(given_values)))
    assert (found["min"], found["max"]) == (min(given_values, default=None), max(given_values, default=None))
    if given_values:
        tolerance = 1e-9 * max(map(abs, given_values))
        assert found["mean"] == pytest.approx(sum(given_values) / len(given_values), rel=1e-9, abs=tolerance)
        assert (found["positive_rate"] is not None) == (set(given_values) <= {0, 1})


@given(st.lists(st.none() | st.lists(st.none() | st.text(max_size=3), max_size=4), min_size=1, max_size=40), CUTS)
def test_lists_of_strings(values: list[list[str | None] | None], cuts: list[int]) -> None:
    lengths = [len(v) if v else 0 for v in values]
    for kind in (pa.list_(pa.string()), pa.large_list(pa.large_string())):
        found = profile(pa.array(values, kind), cuts)
        assert found["max_length"] == max(lengths)
        assert found["mean_length"] == sum(lengths) / len(values)
        assert found["null_rate"] == values.count(None) / len(values)
        assert found["distinct"] == len({one for v in values if v for one in v if one is not None})
        assert found["min"] is found["positive_rate"] is None


@pytest.mark.parametrize("distinct", [KEPT - 1, 10 * KEPT, 200 * KEPT])
def test_distinct_is_within_five_standard_errors(distinct: int) -> None:
    count = DistinctCount()
    for part in np.array_split(np.arange(distinct), 7):
        count.add(hash_integers(part))
        count.add(hash_integers(part[::3]))
    assert count.is_exact == (distinct < KEPT)
    allowed = 0 if count.is_exact else 5 / np.sqrt(KEPT)
    assert abs(count.estimate() / distinct - 1) <= allowed


@given(st.lists(st.integers(0, 50), max_size=60), CUTS)
def test_distinct_does_not_depend_on_batches(values: list[int], cuts: list[int]) -> None:
    hashes = hash_integers(np.array(values, np.int64))
    at_once, in_parts = DistinctCount(8), DistinctCount(8)
    at_once.add(hashes)
    for part in np.split(hashes, sorted(min(cut, len(hashes)) for cut in cuts)):
        in_parts.add(part)
    assert in_parts.estimate() == at_once.estimate()


def test_numbers_that_are_not_finite_are_counted_apart() -> None:
    found = profile(pa.array([1.5, float("nan"), None, float("inf"), 3.5]), [2])
    assert (found["min"], found["mean"], found["max"], found["non_finite"]) == (1.5, 2.5, 3.5, 2)
    assert found["null_rate"] == 0.2
    assert found["distinct"] is None


def test_other_types() -> None:
    assert profile(pa.array([True, False, None, True]), [])["positive_rate"] == pytest.approx(2 / 3)
    assert profile(pa.nulls(3), [])["null_rate"] == 1
    words = pa.DictionaryArray.from_arrays(pa.array([2, 0, None, 2], pa.int8()), ["a", "unused", "b"])
    assert profile(words, [])["distinct"] == 2
    decimals = profile(pa.array([1, 2, 6]).cast(pa.decimal128(38, 0)), [])
    assert (decimals["mean"], decimals["distinct"]) == (3.0, None)
    assert profile(pa.array([2**64 - 1, 0], pa.uint64()), [])["max"] == 2**64 - 1
    pairs = profile(pa.array([[1, 2], None, [2, 3]], pa.list_(pa.int32(), 2)), [])
    assert (pairs["max_length"], pairs["mean_length"], pairs["distinct"]) == (2, 4 / 3, 3)
    days = profile(pa.array([18_000, None], pa.date32()), [])
    assert (days["null_rate"], days["min"], days["positive_rate"]) == (0.5, None, None)
    rows = profile(pa.array([{"x": 1}, None]), [])
    assert (rows["null_rate"], rows["distinct"]) == (0.5, None)
