"""How long one call of a bundle takes, by number of rows: for its record, and for whoever compares bundles."""

import statistics
import time
from collections.abc import Sequence

from configs.schema import Config
from trainer.export.sample import generate_columns
from trainer.serving.bundle import Bundle

_CALLS = 30


def call_milliseconds(bundle: Bundle, config: Config, sizes: Sequence[int]) -> dict[int, float]:
    """Median milliseconds of one call by number of rows, from transformed columns to predictions on the host."""
    medians = {}
    for rows in sizes:
        columns, seconds = generate_columns(config, rows), []
        for _ in range(_CALLS):
            started = time.perf_counter()
            bundle.score(columns)
            seconds.append(time.perf_counter() - started)
        medians[rows] = 1000 * statistics.median(seconds)
    return medians
