"""What columns of generated logs have in common: raw IDs, binary labels of a set rate, nulls."""

import numpy as np
import pyarrow as pa

from trainer.data.generators._hashing import mix


def raw_ids(ranks: np.ndarray, seed: int) -> np.ndarray:
    """int64: popularity ranks as the 63-bit IDs that real systems have."""
    return (mix(ranks, seed) >> np.uint64(1)).astype(np.int64)


def probability(rate: float, score: np.ndarray, signal: float) -> np.ndarray:
    """Sigmoid of a scaled score, shifted so that the mean is about `rate` (probit approximation)."""
    shift = np.log(rate / (1 - rate)) * np.sqrt(1 + np.pi / 8 * signal**2)
    return 1 / (1 + np.exp(-(shift + signal * score)))


def with_nulls(rng: np.random.Generator, values: np.ndarray, rate: float) -> pa.Array:
    """`values`, a share `rate` of them null at random."""
    return pa.array(values, mask=rng.random(len(values)) < rate)
