"""Two regression tasks with a set correlation: the synthetic study of the MMoE paper.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018, section
3.2: with orthogonal unit vectors u1, u2 and a correlation p, w1 = c*u1 and w2 = c*(p*u1 + sqrt(1 - p^2)*u2); the inputs
are standard normal, and y_t = w_t.x + sum over i of sin(a_i * w_t.x + b_i) + e with e ~ N(0, 0.01).
The paper leaves a_i and b_i open: here a_i = i and b_i is drawn once for both tasks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from trainer.data.generators import STRUCTURE, parse_options, plain_files, random_stream


@dataclass(frozen=True)
class Options:
    """correlation: p, cosine of the weight vectors; scale: c; sine_terms: 0 makes the tasks linear; noise: of e."""

    dimension: int = 100
    correlation: float = 0.5
    scale: float = 1.0
    sine_terms: int = 4
    noise: float = 0.1


RANGES = {"dimension": (2, 100_000), "correlation": (-1, 1), "sine_terms": (0, 1_000), "noise": (0, 100)}


def parse(options: Mapping[str, Any]) -> Options:
    return parse_options("regression", Options, options, RANGES)


def files(options: Options, seed: int, part: int, rows: int, rows_per_file: int) -> Iterator[tuple[str, pa.Table]]:
    """Columns: x (list of `dimension` float32), y1 and y2 (float32)."""
    structure = random_stream(seed, STRUCTURE)
    weights = weight_vectors(options, structure)
    phases = structure.uniform(0, 2 * np.pi, options.sine_terms)
    for number, name, file_rows in plain_files(rows, rows_per_file):
        rng = random_stream(seed, part, number)
        x = rng.standard_normal((file_rows, options.dimension))
        y = targets(x @ weights.T, phases) + options.noise * rng.standard_normal((file_rows, 2))
        flat = pa.array(x.astype(np.float32).reshape(-1))
        columns = {"x": pa.FixedSizeListArray.from_arrays(flat, options.dimension)}
        yield name, pa.table(columns | {"y1": y[:, 0].astype(np.float32), "y2": y[:, 1].astype(np.float32)})


def weight_vectors(options: Options, rng: np.random.Generator) -> np.ndarray:
    """[2, dimension]: w1 and w2 of equations 1 and 2 of the paper; their cosine is exactly `correlation`."""
    unit, _ = np.linalg.qr(rng.standard_normal((options.dimension, 2)))
    second = options.correlation * unit[:, 0] + np.sqrt(1 - options.correlation**2) * unit[:, 1]
    return options.scale * np.stack([unit[:, 0], second])


def targets(projections: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Equations 3 and 4 without noise: p + sum over i = 1..m of sin(i * p + phase_i), elementwise."""
    result = projections.copy()
    for number, phase in enumerate(phases, start=1):
        result += np.sin(number * projections + phase)
    return result
