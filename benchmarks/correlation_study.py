"""The synthetic study of the MMoE paper: two regression tasks, less and less related, under three kinds of sharing.

    python -m benchmarks.correlation_study [--seeds 5] [--steps 3000] [--plot FILE.svg] [--json]

Ma et al., KDD 2018, sections 3.2 and 5.1: `trainer/data/generators/regression.py` has the data, 100 inputs; here every
batch is drawn anew. Models of about equal size: shared-bottom with one wide layer, OMoE and MMoE with 8 experts of 16
units; a tower of 8 units a task. Adam; the figure of a run is the mean squared error of both tasks on fresh rows, as a
share of the labels' variance.
`--json` ends with one object: model -> correlation -> mean and standard deviation over seeds.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.line_chart import line_chart
from configs.schema import ModelConfig, TaskConfig
from models.build import build_top
from models.criterion import Criterion
from trainer.data.generators.regression import Options, targets, weight_vectors

CORRELATIONS = (0.0, 0.5, 0.9, 1.0)
DIMENSION, BATCH, TEST_ROWS = 100, 256, 20_000
TASKS = {"y1": TaskConfig(loss="mse"), "y2": TaskConfig(loss="mse")}
EXPERTS = {"num_experts": 8, "expert_layers": (16,), "gate_layers": (), "tower_layers": (8,)}
MODELS = {
    "shared_bottom": ModelConfig(top="shared_bottom", expert_layers=(135,), tower_layers=(8,)),
    "moe": ModelConfig(top="moe", **EXPERTS),
    "mmoe": ModelConfig(top="mmoe", **EXPERTS),
}


class Rows:
    """An endless supply of rows of one correlation and seed."""

    def __init__(self, correlation: float, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._weights = weight_vectors(Options(dimension=DIMENSION, correlation=correlation), self._rng)
        self._phases = self._rng.uniform(0, 2 * np.pi, Options().sine_terms)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """x [count, DIMENSION] and labels [count, 2]."""
        x = self._rng.standard_normal((count, DIMENSION), dtype=np.float32)
        y = targets(x @ self._weights.T, self._phases) + Options().noise * self._rng.standard_normal((count, 2))
        return torch.from_numpy(x), torch.from_numpy(y.astype(np.float32))


def error_after_training(model: ModelConfig, correlation: float, seed: int, steps: int) -> float:
    """Mean over both tasks of the squared error on fresh rows, over the labels' variance."""
    torch.manual_seed(seed)
    rows, top, criterion = Rows(correlation, seed), build_top(model, TASKS, DIMENSION), Criterion(TASKS)
    optimizer = torch.optim.Adam(top.parameters(), lr=2e-3, fused=True)
    ones = torch.ones(BATCH, len(TASKS))
    for _ in range(steps):
        x, labels = rows.draw(BATCH)
        optimizer.zero_grad()
        (criterion(top(x)[0], labels, ones).sum() / BATCH).backward()
        optimizer.step()
    x, labels = rows.draw(TEST_ROWS)
    with torch.no_grad():
        errors = (top(x)[0] - labels).square().mean(dim=0) / labels.var(dim=0)
    return errors.mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = sys.stderr if arguments.json else sys.stdout
    found: dict[str, dict[float, list[float]]] = {}
    for name, model in MODELS.items():
        size = sum(parameter.numel() for parameter in build_top(model, TASKS, DIMENSION).parameters())
        print(f"{name}, {size:,} parameters", file=out)
        found[name] = {}
        for correlation in CORRELATIONS:
            errors = [
                error_after_training(model, correlation, seed, arguments.steps) for seed in range(arguments.seeds)
            ]
            found[name][correlation] = [statistics.fmean(errors), statistics.stdev(errors)]
            mean, deviation = found[name][correlation]
            print(f"  correlation {correlation:.1f}  error {mean:.4f} ± {deviation:.4f}", file=out, flush=True)
    if arguments.plot:
        lines = {name: [(x, mean, spread) for x, (mean, spread) in values.items()] for name, values in found.items()}
        arguments.plot.write_text(line_chart(lines, "correlation of the two tasks", "squared error / variance"))
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
