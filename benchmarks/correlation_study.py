"""The synthetic study of the MMoE paper: what happens to shared models as two tasks have less to do with each other.

    python -m benchmarks.correlation_study [--seeds 6] [--steps 4000] [--sines 2] [--json]

Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", sections 3.2,
3.3 and 5.1. Two regression tasks of a set correlation (trainer/data/generators/regression.py: 100 inputs, a linear
part and sines, of which the paper does not say how many), endless fresh rows, mean squared error, Adam. Shared-bottom,
MoE with one gate and MMoE have about equally many parameters: 8 experts of one layer of 16 (MMoE), towers of 8, the
others' widths to match. Every seed is another pair of tasks, the same for all tops and correlations, so that a loss is
held against the same top's on the same tasks at correlation 1: how much worse it gets is what the study is about.
The plot is written beside RESULTS.md.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.line_chart import Line, Panel, line_chart
from configs.layout import lay_out
from configs.schema import ModelConfig, TaskConfig
from models.build import build_top
from trainer.data.generators.regression import Settings, targets, weight_vectors

CORRELATIONS = (0.5, 0.9, 1.0)
WIDTHS = {"shared_bottom": 126, "moe": 17, "mmoe": 16}  # of the bottom, of each of eight experts
TASKS = {"y1": TaskConfig(loss="mse"), "y2": TaskConfig(loss="mse")}
BATCH, LEARNING_RATE, TEST_ROWS = 128, 1e-3, 20_000
PLOT = Path(__file__).with_name("correlation_study.svg")


def build(top: str) -> torch.nn.Module:
    model = ModelConfig(top=top, num_experts=8, expert_layers=(WIDTHS[top],), tower_layers=(8,))
    return build_top(model, TASKS, lay_out({}, {"x": Settings().dimension}))


class Source:
    """Rows of one pair of tasks."""

    def __init__(self, correlation: float, sines: int, seed: int) -> None:
        self._settings = Settings(correlation=correlation, sine_terms=sines)
        structure = np.random.default_rng(seed)
        self._weights = weight_vectors(self._settings, structure)
        self._phases = structure.uniform(0, 2 * np.pi, self._settings.sine_terms)
        self._rows = np.random.default_rng((seed, 1))

    def draw(self, rows: int) -> tuple[Tensor, Tensor]:
        """x [rows, 100] and y [rows, 2]."""
        x = self._rows.standard_normal((rows, self._settings.dimension), dtype=np.float32)
        noise = self._settings.noise * self._rows.standard_normal((rows, 2))
        y = targets(x @ self._weights.T, self._phases) + noise
        return torch.from_numpy(x), torch.from_numpy(y.astype(np.float32))


def train(top: str, source: Source, seed: int, steps: int) -> float:
    """Mean squared error on fresh rows after `steps`, over the labels' variance; the mean of both tasks."""
    test_x, test_y = source.draw(TEST_ROWS)
    torch.manual_seed(seed)
    network = build(top)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
    for _ in range(steps):
        x, y = source.draw(BATCH)
        optimizer.zero_grad()
        (network(x)[0] - y).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        errors = (network.eval()(test_x)[0] - test_y).square().mean(dim=0)
    return float((errors / test_y.var(dim=0)).mean())


def study(seeds: int, steps: int, sines: int) -> dict[str, dict[float, list[float]]]:
    """top -> correlation -> loss of each seed."""
    found: dict[str, dict[float, list[float]]] = {top: {c: [] for c in CORRELATIONS} for top in WIDTHS}
    for seed in range(seeds):
        for correlation in CORRELATIONS:
            for top in WIDTHS:
                found[top][correlation].append(train(top, Source(correlation, sines, seed), seed, steps))
    return found


def degradation(losses: dict[float, list[float]]) -> dict[float, list[float]]:
    """correlation -> of each seed, loss over that of correlation 1."""
    return {c: [a / b for a, b in zip(of, losses[1.0], strict=True)] for c, of in losses.items()}


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean, and the mean one standard error below and above it."""
    logs = [math.log(value) for value in values]
    mean = statistics.fmean(logs)
    error = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    return math.exp(mean), math.exp(mean - error), math.exp(mean + error)


def plot(found: dict[str, dict[float, list[float]]], title: str) -> str:
    ticks = [(c, f"{c:g}") for c in CORRELATIONS]
    lines: list[list[Line]] = [[], []]
    for top, losses in found.items():
        for panel, values in zip(lines, (losses, degradation(losses)), strict=True):
            spreads = [spread(values[c]) for c in CORRELATIONS]
            panel.append(Line(top, CORRELATIONS, [s[0] for s in spreads], [s[1:] for s in spreads]))
    panels = [
        Panel("Error", "correlation of the two tasks", "squared error / variance", ticks, lines[0]),
        Panel("Error against correlation 1", "correlation of the two tasks", "times", ticks, lines[1]),
    ]
    return line_chart(title, panels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--sines", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    found = study(arguments.seeds, arguments.steps, arguments.sines)
    what = f"{arguments.seeds} pairs of regression tasks with {arguments.sines} sines"
    PLOT.write_text(plot(found, f"{what}, {arguments.steps:,} steps of {BATCH} rows"))
    result = {}
    print(f"{'top':<14}{'parameters':>11}" + "".join(f"{f'error at {c:g}':>15}" for c in CORRELATIONS), end="")
    print("".join(f"{f'{c:g} / 1':>22}" for c in CORRELATIONS[:-1]))
    for top, losses in found.items():
        size = sum(parameter.numel() for parameter in build(top).parameters())
        worse = {c: spread(values) for c, values in degradation(losses).items()}
        print(f"{top:<14}{size:>11,}" + "".join(f"{spread(losses[c])[0]:>15.4f}" for c in CORRELATIONS), end="")
        ranges = (worse[c] for c in CORRELATIONS[:-1])
        print("".join(f"{f'{mean:.2f} ({low:.2f}-{high:.2f})':>22}" for mean, low, high in ranges))
        result[top] = {"parameters": size, "losses": losses, "degradation": worse}
    print(f"{time.perf_counter() - started:.0f} s, {time.process_time():.0f} s of CPU; plot: {PLOT}")
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
