"""Rows of the reference MMoE: 100 binary inputs in one list column, and two related labels.

Both labels are noisy thresholds of a linear score of the inputs plus products of neighbouring inputs, so that a linear
model learns part of them and experts the rest. `correlation` is the cosine of the two score vectors.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import Field

from configs.choice_settings import ChoiceSettings
from trainer.data.generators import STRUCTURE, Generator, plain_files, random_stream

PRODUCT_SHARE = 0.5  # of a product's weight, to an input's


class Settings(ChoiceSettings):
    width: int = Field(default=100, ge=2, le=100_000, description="Binary inputs of a row.")
    correlation: float = Field(default=0.8, ge=-1, le=1, description="How alike the tasks are; 1: one task twice.")
    noise: float = Field(default=0.3, ge=0, le=100, description="Spread of the score's error; 0: labels without error.")


def build(settings: Settings) -> Generator:
    return partial(files, settings)


def files(settings: Settings, seed: int, part: int, rows: int, rows_per_file: int) -> Iterator[tuple[str, pa.Table]]:
    """Columns: x (list of `width` float32, 0 or 1), engagement and click (float32, 0 or 1)."""
    score_vectors = _score_vectors(settings, seed)
    for number, name, file_rows in plain_files(rows, rows_per_file):
        yield name, _table(settings, score_vectors, random_stream(seed, part, number), file_rows)


def _score_vectors(settings: Settings, seed: int) -> np.ndarray:
    """[2 tasks, 2 * width - 1]: weights of the inputs, then of the products of neighbours, as unit vectors."""
    shared, own = random_stream(seed, STRUCTURE).standard_normal((2, 2 * settings.width - 1))
    shared[settings.width :] *= PRODUCT_SHARE
    own[settings.width :] *= PRODUCT_SHARE
    own -= shared * (own @ shared) / (shared @ shared)
    shared, own = shared / np.linalg.norm(shared), own / np.linalg.norm(own)
    return np.stack([shared, settings.correlation * shared + np.sqrt(1 - settings.correlation**2) * own])


def _table(settings: Settings, score_vectors: np.ndarray, rng: np.random.Generator, rows: int) -> pa.Table:
    signs = 2.0 * rng.integers(0, 2, (rows, settings.width)) - 1.0
    inputs = np.concatenate([signs, signs[:, 1:] * signs[:, :-1]], axis=1)  # every column has mean 0, variance 1
    scores = inputs @ score_vectors.T + settings.noise * rng.standard_normal((rows, 2))
    labels = (scores > 0).astype(np.float32)
    x = pa.array((signs > 0).astype(np.float32).reshape(-1))
    return pa.table(
        {
            "x": pa.FixedSizeListArray.from_arrays(x, settings.width),
            "engagement": labels[:, 0],
            "click": labels[:, 1],
        }
    )
