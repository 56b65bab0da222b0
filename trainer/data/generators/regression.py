"""Two regression tasks with a set correlation: the synthetic study of the MMoE paper.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018, section
3.2: with orthogonal unit vectors u1, u2 and a correlation p, w1 = c*u1 and w2 = c*(p*u1 + sqrt(1 - p^2)*u2); the inputs
are standard normal, and y_t = w_t.x + sum over i of sin(a_i * w_t.x + b_i) + e with e ~ N(0, 0.01).
The paper leaves a_i and b_i open: here a_i = i and b_i is drawn once for both tasks.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import Field

from configs.choice_settings import ChoiceSettings
from trainer.data.generators import STRUCTURE, Generator, plain_files, random_stream


class Settings(ChoiceSettings):
    dimension: int = Field(default=100, ge=2, le=100_000, description="Inputs of a row.")
    correlation: float = Field(default=0.5, ge=-1, le=1, description="p, the cosine of the tasks' weight vectors.")
    scale: float = Field(
        default=1.0, description="c, the length of the weight vectors; large ones make the sines fast."
    )
    sine_terms: int = Field(default=4, ge=0, le=1_000, description="m, sines of a task; 0 makes the tasks linear.")
    noise: float = Field(default=0.1, ge=0, le=100, description="Standard deviation of e.")


def build(settings: Settings) -> Generator:
    return partial(files, settings)


def files(settings: Settings, seed: int, part: int, rows: int, rows_per_file: int) -> Iterator[tuple[str, pa.Table]]:
    """Columns: x (list of `dimension` float32), y1 and y2 (float32)."""
    structure = random_stream(seed, STRUCTURE)
    weights = weight_vectors(settings, structure)
    phases = structure.uniform(0, 2 * np.pi, settings.sine_terms)
    for number, name, file_rows in plain_files(rows, rows_per_file):
        rng = random_stream(seed, part, number)
        x = rng.standard_normal((file_rows, settings.dimension))
        y = targets(x @ weights.T, phases) + settings.noise * rng.standard_normal((file_rows, 2))
        flat = pa.array(x.astype(np.float32).reshape(-1))
        columns = {"x": pa.FixedSizeListArray.from_arrays(flat, settings.dimension)}
        yield name, pa.table(columns | {"y1": y[:, 0].astype(np.float32), "y2": y[:, 1].astype(np.float32)})


def weight_vectors(settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """[2, dimension]: w1 and w2 of equations 1 and 2 of the paper; their cosine is exactly `correlation`."""
    unit, _ = np.linalg.qr(rng.standard_normal((settings.dimension, 2)))
    second = settings.correlation * unit[:, 0] + np.sqrt(1 - settings.correlation**2) * unit[:, 1]
    return settings.scale * np.stack([unit[:, 0], second])


def targets(projections: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Equations 3 and 4 without noise: p + sum over i = 1..m of sin(i * p + phase_i), elementwise."""
    result = projections.copy()
    for number, phase in enumerate(phases, start=1):
        result += np.sin(number * projections + phase)
    return result
