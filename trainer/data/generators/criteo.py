"""Impressions of a display advertising log in the shape of Criteo's: 26 single IDs, 13 counts, click and conversion.

The columns' cardinalities are those of the terabyte log (Criteo AI Lab, 2014; large ones capped at 40 million, as
MLPerf trains it), cut at `max_cardinality` to fit a laptop. Values are Zipf-distributed and follow no one's data. A
score is the sum of a bias of every ID, affinities of neighbouring columns, and the counts. Columns:

    label             float, 0 or 1: a click
    conversion        float, 0 or 1; null where there was no click
    i1 ... i13        int32 counts, skewed, some null
    c1 ... c26        int64, 63 bits, as hashed categories are; some null
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import Field

from configs.choice_settings import ChoiceSettings
from configs.section import OpenFraction
from trainer.data.generators import Generator, plain_files, random_stream
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


class Settings(ChoiceSettings):
    max_cardinality: int = Field(
        default=200_000, ge=1, le=2**62, description="Distinct IDs of a column at most: what its table has to hold."
    )
    zipf: float = Field(default=1.05, ge=0, le=10, description="Exponent of the IDs' popularity; 0: all alike.")
    click_rate: OpenFraction = Field(default=0.25, description="Share of clicks, about.")
    conversion_rate: OpenFraction = Field(default=0.1, description="Of any impression, were it clicked; about.")
    null_rate: float = Field(default=0.05, ge=0, le=1, description="Share of the values that are null.")
    signal: float = Field(default=1.5, ge=0, le=100, description="How strongly scores spread; 0: nothing to learn.")


def build(settings: Settings) -> Generator:
    return partial(files, settings)


def files(settings: Settings, seed: int, part: int, rows: int, rows_per_file: int) -> Iterator[tuple[str, pa.Table]]:
    """Files without partitions; the columns are listed above."""
    for number, name, file_rows in plain_files(rows, rows_per_file):
        yield name, _table(settings, seed, random_stream(seed, part, number), file_rows)


def _table(settings: Settings, seed: int, rng: np.random.Generator, rows: int) -> pa.Table:
    ids = [zipf(rng.random(rows), min(count, settings.max_cardinality), settings.zipf) for count in CARDINALITIES]
    counts = np.floor(rng.lognormal(1.0, 1.5, (COUNTS, rows)))
    scores = _scores(seed, ids, counts)
    clicked = rng.random(rows) < probability(settings.click_rate, scores[0], settings.signal)
    converted = rng.random(rows) < probability(settings.conversion_rate, scores[1], settings.signal)
    columns = {
        "label": pa.array(clicked.astype(np.float32)),
        "conversion": pa.array(converted.astype(np.float32), mask=~clicked),
    }
    for number, values in enumerate(counts, 1):
        columns[f"i{number}"] = with_nulls(rng, values.astype(np.int32), settings.null_rate)
    for number, ranks in enumerate(ids, 1):
        columns[f"c{number}"] = with_nulls(rng, raw_ids(ranks, seed + 100 * VALUE + number), settings.null_rate)
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
