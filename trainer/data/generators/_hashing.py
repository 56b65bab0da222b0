"""Properties of IDs without tables of them: numbers that depend on nothing but the ID and a seed.

So a generator can have billions of users in no memory, and all files and parts agree on what an ID means.
"""

import numpy as np

from configs.splitmix import GAMMA, scramble, signed


def mix(ids: np.ndarray, seed: int) -> np.ndarray:
    """uint64 of the same shape, one to one with `ids` for a given seed (SplitMix64)."""
    return scramble(ids.astype(np.int64) + signed((seed + 1) * GAMMA)).view(np.uint64)


def uniform(ids: np.ndarray, seed: int) -> np.ndarray:
    """float64 in [0, 1), as if drawn once for every distinct ID."""
    return (mix(ids, seed) >> np.uint64(11)) * 2.0**-53


def factors(ids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """[..., count] independent latent factors of every ID: mean 0, variance 1, uniform."""
    drawn = [uniform(ids, seed * 1_000 + number) for number in range(count)]
    return (np.stack(drawn, axis=-1) - 0.5) * np.sqrt(12.0)


def zipf(u: np.ndarray, count: int, exponent: float) -> np.ndarray:
    """Ranks 0 .. count - 1, rank r with a probability near (r + 1)^-exponent, from uniform `u` in [0, 1).

    It inverts the continuous distribution, so any `count` costs the same.
    """
    edge = count + 1.0
    if abs(exponent - 1.0) < 1e-9:
        x = edge**u
    else:
        x = (1.0 + u * (edge ** (1.0 - exponent) - 1.0)) ** (1.0 / (1.0 - exponent))
    return np.minimum(x.astype(np.int64) - 1, count - 1)
