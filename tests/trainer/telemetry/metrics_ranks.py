"""One rank of a gloo group that computes metrics over its share of common rows; run by the tests as a process."""

import json

import numpy as np
import torch
import torch.distributed as dist

from trainer.telemetry.curves import task_curves
from trainer.telemetry.gates import GateTelemetry
from trainer.telemetry.metrics import TaskMetrics

TASKS, BINARY = ("click", "like", "watch"), ("click", "like")
ROWS, BATCH = 5000, 700


def rows() -> dict[str, torch.Tensor]:
    """Common to all ranks: scores with many ties, weights of which some are zero, groups of unequal size."""
    random = np.random.default_rng(5)
    predictions = random.beta(2, 3, (ROWS, 3)).round(2)
    predictions[:, 1] = np.where(random.random(ROWS) < 0.9, 0.25, predictions[:, 1])  # one value nearly everywhere
    labels = (random.random((ROWS, 3)) < predictions).astype(np.float32)
    weights = random.choice([0.0, 0.5, 1.0, 3.0], (ROWS, 3))
    columns = {"predictions": predictions, "labels": labels, "weights": weights}
    made = {name: torch.tensor(values, dtype=torch.float32) for name, values in columns.items()}
    made["groups"] = torch.tensor(random.geometric(0.02, ROWS) * 10**15)
    made["gates"] = torch.softmax(torch.tensor(random.normal(0, 2, (ROWS, 3, 4))), 2)
    return made


def measure(mine: slice) -> dict[str, object]:
    metrics, gates = TaskMetrics(TASKS, BINARY, keep_all=True, block_rows=512), GateTelemetry(TASKS)
    part = {name: values[mine] for name, values in rows().items()}
    for start in range(0, ROWS, BATCH):  # a rank that runs out of rows steps on with empty batches
        batch = {name: values[start : start + BATCH] for name, values in part.items()}
        losses = (batch["weights"] * (batch["predictions"] - batch["labels"]) ** 2).double().sum(0)
        metrics.update(batch["predictions"], batch["labels"], batch["weights"], losses, batch["groups"])
        gates.update({"gate": batch["gates"]}, batch["weights"])
    use = gates.compute()["gate"]
    curves = task_curves(*metrics.kept("click")[:3])
    return {
        "tasks": metrics.compute(),
        "load": use.load,
        "entropy": use.entropy,
        "reliability": [(point.prediction, point.label, point.share) for point in curves.reliability],
        "positives": curves.true_positives,
    }


def main(rank: int, world: int, store: str, output: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    cuts = np.linspace(0, ROWS, world + 1).astype(int) + np.arange(world + 1) % world * 300  # unequal shares
    with open(output, "w", encoding="utf-8") as file:
        json.dump(measure(slice(cuts[rank], cuts[rank + 1] if rank + 1 < world else ROWS)), file)
    dist.barrier()
    dist.destroy_process_group()
