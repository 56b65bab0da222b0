"""Impressions of a display advertising log in the shape of Criteo's: 26 single IDs, 13 counts, click and conversion.

The columns' cardinalities are those of the terabyte log (Criteo AI Lab, 2014; large ones capped at 40 million, as
MLPerf trains it), cut at `max_cardinality` to fit a laptop. Values are Zipf-distributed and follow no one's data. A
score is the sum of a bias of every ID, affinities of neighbouring columns, and the counts. Columns:

    label             float, 0 or 1: a click
    conversion        float, 0 or 1; null where there was no click
    i1 ... i13        int32 counts, skewed, some null
    c1 ... c26        int64, 63 bits, as hashed categories are; some null
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from trainer.data.generators import parse_options, plain_files, random_stream
from trainer.data.generators._columns import probability, raw_ids, with_nulls
from trainer.data.generators._hashing import factors, zipf

CARDINALITIES = (
    *(40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956, 405_282, 10),
    *(2_209, 11_938, 155, 4, 976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152, 12_973, 108, 36),
)
COUNTS = 13
TASKS = ("label", "conversion")
PAIRS = 4  # neighbouring columns whose IDs like or dislike each other
BIAS, AFFINITY, VALUE = 1, 2, 3  # seeds of the properties of IDs, a hundred columns apart


@dataclass(frozen=True)
class Options:
    """max_cardinality: distinct IDs of a column at most; zipf: exponent of their popularity; click_rate: about;
    conversion_rate: of any impression, were it clicked; null_rate: share of the values; signal: how strongly scores
    spread."""

    max_cardinality: int = 200_000
    zipf: float = 1.05
    click_rate: float = 0.25
    conversion_rate: float = 0.1
    null_rate: float = 0.05
    signal: float = 1.5


RANGES = {
    "max_cardinality": (1, 2**62),
    "zipf": (0, 10),
    "click_rate": (1e-6, 1 - 1e-6),
    "conversion_rate": (1e-6, 1 - 1e-6),
    "null_rate": (0, 1),
    "signal": (0, 100),
}


def parse(options: Mapping[str, Any]) -> Options:
    return parse_options("criteo", Options, options, RANGES)


def files(options: Options, seed: int, part: int, rows: int, rows_per_file: int) -> Iterator[tuple[str, pa.Table]]:
    """Files without partitions; the columns are listed above."""
    for number, name, file_rows in plain_files(rows, rows_per_file):
        yield name, _table(options, seed, random_stream(seed, part, number), file_rows)


def _table(options: Options, seed: int, rng: np.random.Generator, rows: int) -> pa.Table:
    ids = [zipf(rng.random(rows), min(count, options.max_cardinality), options.zipf) for count in CARDINALITIES]
    counts = np.floor(rng.lognormal(1.0, 1.5, (COUNTS, rows)))
    scores = _scores(seed, ids, counts)
    clicked = rng.random(rows) < probability(options.click_rate, scores[0], options.signal)
    converted = rng.random(rows) < probability(options.conversion_rate, scores[1], options.signal)
    columns = {
        "label": pa.array(clicked.astype(np.float32)),
        "conversion": pa.array(converted.astype(np.float32), mask=~clicked),
    }
    for number, values in enumerate(counts, 1):
        columns[f"i{number}"] = with_nulls(rng, values.astype(np.int32), options.null_rate)
    for number, ranks in enumerate(ids, 1):
        columns[f"c{number}"] = with_nulls(rng, raw_ids(ranks, seed + 100 * VALUE + number), options.null_rate)
    return pa.table(columns)


def _scores(seed: int, ids: list[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """[tasks, rows], about standard normal. Tasks share the affinities and the counts, and have biases of their own."""
    biases = sum(factors(column, len(TASKS), seed + 100 * BIAS + number) for number, column in enumerate(ids))
    affinity = np.zeros(len(ids[0]))
    for number in range(PAIRS):
        left, right = ids[number], ids[number + 1]
        affinity += (factors(left, 1, seed + AFFINITY) * factors(right, 1, seed + AFFINITY + number)).sum(axis=-1)
    shared = 0.7 * affinity / np.sqrt(PAIRS) + 0.3 * (np.log1p(counts[:2]) - 1.4).sum(axis=0)
    return (np.asarray(biases).T / np.sqrt(len(ids)) + shared) / 1.3
