"""How long one call of a bundle takes, by number of rows: for its record, and to choose between its programs.

All on one thread, as a process of a server runs.
"""

import contextlib
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import takewhile

import torch

from configs.schema import Config
from trainer.export.sample import generate_columns
from trainer.serving.bundle import Bundle

_CALLS = 30
_FEW_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64)


def call_milliseconds(bundle: Bundle, config: Config, sizes: Sequence[int]) -> dict[int, float]:
    """Median milliseconds of one call by number of rows, from transformed columns to predictions on the host."""
    return {rows: _in_turns((bundle,), config, rows)[0] for rows in sizes}


def most_rows(small: Bundle, other: Bundle, config: Config) -> int:
    """Up to how many rows a call is faster in `small`, which takes all calls; 0: it never is."""

    def is_faster(rows: int) -> bool:
        here, there = _in_turns((small, other), config, rows)
        return here < there

    return max([0, *takewhile(is_faster, _FEW_ROWS)])


def _in_turns(bundles: Sequence[Bundle], config: Config, rows: int) -> list[float]:
    """Median milliseconds of a call of each; what the machine does beside them meets all alike."""
    columns, seconds = generate_columns(config, rows), [[] for _ in bundles]
    with _one_thread():
        for _ in range(_CALLS):
            for bundle, taken in zip(bundles, seconds, strict=True):
                started = time.perf_counter()
                bundle.score(columns)
                taken.append(time.perf_counter() - started)
    return [1000 * statistics.median(taken) for taken in seconds]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
