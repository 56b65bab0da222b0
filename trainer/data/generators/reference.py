"""Rows of the reference MMoE: 100 binary inputs in one list column, and two related labels.

Both labels are noisy thresholds of a linear score of the inputs plus products of neighbouring inputs, so that a linear
model learns part of them and experts the rest. `correlation` is the cosine of the two score vectors.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from trainer.data.generators import STRUCTURE, parse_options, plain_files, random_stream

PRODUCT_SHARE = 0.5  # of a product's weight, to an input's


@dataclass(frozen=True)
class Options:
    """width: number of binary inputs; correlation: how alike the tasks are; noise: spread of the score's error."""

    width: int = 100
    correlation: float = 0.8
    noise: float = 0.3


RANGES = {"width": (2, 100_000), "correlation": (-1, 1), "noise": (0, 100)}


def parse(options: Mapping[str, Any]) -> Options:
    return parse_options("reference", Options, options, RANGES)


def files(options: Options, seed: int, part: int, rows: int, rows_per_file: int) -> Iterator[tuple[str, pa.Table]]:
    """Columns: x (list of `width` float32, 0 or 1), engagement and click (float32, 0 or 1)."""
    score_vectors = _score_vectors(options, seed)
    for number, name, file_rows in plain_files(rows, rows_per_file):
        yield name, _table(options, score_vectors, random_stream(seed, part, number), file_rows)


def _score_vectors(options: Options, seed: int) -> np.ndarray:
    """[2 tasks, 2 * width - 1]: weights of the inputs, then of the products of neighbours, as unit vectors."""
    shared, own = random_stream(seed, STRUCTURE).standard_normal((2, 2 * options.width - 1))
    shared[options.width :] *= PRODUCT_SHARE
    own[options.width :] *= PRODUCT_SHARE
    own -= shared * (own @ shared) / (shared @ shared)
    shared, own = shared / np.linalg.norm(shared), own / np.linalg.norm(own)
    return np.stack([shared, options.correlation * shared + np.sqrt(1 - options.correlation**2) * own])


def _table(options: Options, score_vectors: np.ndarray, rng: np.random.Generator, rows: int) -> pa.Table:
    signs = 2.0 * rng.integers(0, 2, (rows, options.width)) - 1.0
    inputs = np.concatenate([signs, signs[:, 1:] * signs[:, :-1]], axis=1)  # every column has mean 0, variance 1
    scores = inputs @ score_vectors.T + options.noise * rng.standard_normal((rows, 2))
    labels = (scores > 0).astype(np.float32)
    x = pa.array((signs > 0).astype(np.float32).reshape(-1))
    return pa.table(
        {
            "x": pa.FixedSizeListArray.from_arrays(x, options.width),
            "engagement": labels[:, 0],
            "click": labels[:, 1],
        }
    )
