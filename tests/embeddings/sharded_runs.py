"""Small sharded runs with real processes, for test_sharding.py: run as a script, it writes what each run saw.

Torchrec is imported once; the workers of every run are forked from this process, which computes nothing itself.
"""

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from configs.schema import Config
from embeddings.optimizer import attach_sparse_optimizer, combined_optimizer
from embeddings.planning.plan import Pins
from embeddings.planning.planner import plan_tables
from embeddings.sharding import shard
from embeddings.tables import build_tables, initialize_tables, local_shards

CPU = torch.device("cpu")
GLOBAL_BATCH_SIZE = 24
TYPES = {
    "by_rows": "row_wise",
    "whole": "table_wise",
    "other": "table_wise",
    "by_host": "table_row_wise",
    "by_columns": "column_wise",
    "copied": "data_parallel",
    "any": "auto",
}
SWAPPED = TYPES | {"by_rows": "table_wise", "whole": "row_wise", "by_host": "row_wise"}


def config(types: dict[str, str], dense: dict[str, Any] | None = None, **sparse_optimizer: Any) -> Config:
    """A table of every sharding type with one feature each, and one shared by two; `whole` is fp16."""
    tables = {
        name: {"num_embeddings": 50 + i, "embedding_dim": 256 if sharding == "column_wise" else 8, "sharding": sharding}
        for i, (name, sharding) in enumerate(types.items())
    }
    tables.get("whole", {})["data_type"] = "fp16"
    features: dict[str, Any] = {f"id_{name}": {"table": name} for name in types}
    if types:
        features |= {"id_second": {"table": "by_rows", "weights": "w"}}
    return Config.model_validate(
        {
            "data": {"root": "d", "global_batch_size": GLOBAL_BATCH_SIZE},
            "features": features | {"age": {}},
            "tables": tables,
            "tasks": {"click": {}},
            "training": {"run_dir": "r", "sparse_optimizer": sparse_optimizer, "dense_optimizer": dense or {}},
        }
    )


class Model(nn.Module):
    def __init__(self, tables: nn.Module | None, features: list[str], width: int) -> None:
        super().__init__()
        self.tables = tables
        self.features = features
        self.top = nn.Sequential(nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, kjt: KeyedJaggedTensor | None, dense: Tensor) -> Tensor:
        pooled = self.tables(kjt) if self.tables is not None else {}
        return self.top(torch.cat([dense, *(pooled[name] for name in self.features)], dim=1))


class Run:
    """One rank of a run that is ready to train."""

    def __init__(self, config: Config, pins: Pins | None = None, *, with_state: bool = True) -> None:
        self.config, self.rank, self.world_size = config, dist.get_rank(), dist.get_world_size()
        group = dist.group.WORLD
        tables = build_tables(config, torch.device("meta"))
        if tables is not None:
            attach_sparse_optimizer(tables, config, CPU)
        self.plan = plan_tables(tables, config, self.world_size, self.world_size, CPU, pins=pins, group=group)
        features = list(config.sparse_features)
        torch.manual_seed(0)
        width = 1 + sum(config.tables[feature.table].embedding_dim for feature in config.sparse_features.values())
        self.model = shard(Model(tables, features, width), self.plan, CPU, group)
        initialize_tables(self.model, config)
        self.optimizer = combined_optimizer(self.model, config.training)
        if with_state:
            self.optimizer.initialize_state()

    def batch(self, step: int) -> tuple[KeyedJaggedTensor | None, Tensor, Tensor]:
        """This rank's rows of a global batch that depends on nothing but the step."""
        generator = torch.Generator().manual_seed(step)
        dense, labels = torch.rand(2, GLOBAL_BATCH_SIZE, 1, generator=generator)
        first, last = (r * GLOBAL_BATCH_SIZE // self.world_size for r in (self.rank, self.rank + 1))
        values, weights, lengths = [], [], []
        for _ in self.config.sparse_features:
            bags = torch.randint(0, 4, (GLOBAL_BATCH_SIZE,), generator=generator)
            ids = torch.randint(0, 50, (int(bags.sum()),), generator=generator)
            mine = slice(int(bags[:first].sum()), int(bags[:last].sum()))
            values.append(ids[mine])
            weights.append(torch.rand(len(ids), generator=generator)[mine])
            lengths.append(bags[first:last])
        kjt = None
        if values:
            names = list(self.config.sparse_features)
            kjt = KeyedJaggedTensor(names, torch.cat(values), torch.cat(weights), torch.cat(lengths))
        return kjt, dense[first:last], labels[first:last]

    def train(self, steps: int) -> list[float]:
        """Losses of the global batches."""
        losses = []
        for step in range(steps):
            kjt, dense, labels = self.batch(step)
            self.optimizer.zero_grad()
            self.optimizer.set_learning_rates(sparse=0.1 * (step + 1), dense=0.01 * (step + 1))
            loss = (self.model(kjt, dense) - labels).square().sum() * self.world_size / GLOBAL_BATCH_SIZE
            loss.backward()
            self.optimizer.step()
            total = loss.detach() / self.world_size
            dist.all_reduce(total)
            losses.append(total.item())
        return losses

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: flat, sharded."""
        state = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for name, states in self.optimizer.state_dict()["state"].items():
            state |= {f"optim/{name}/{key}": value for key, value in states.items()}
        return state

    def whole_state(self) -> dict[str, Tensor]:
        """The same, unsharded; a rank may lack the optimizer state of a table that it has no part of."""
        mine = self.state()
        shapes: list[Any] = [None] * self.world_size
        dist.all_gather_object(shapes, {name: (value.shape, value.dtype) for name, value in mine.items()})
        whole = {}
        for name, (shape, dtype) in sorted({key: value for part in shapes for key, value in part.items()}.items()):
            if name in mine and not isinstance(mine[name], DTensor):
                whole[name] = mine[name].clone()
                continue
            whole[name] = torch.zeros(shape, dtype=dtype)
            for piece, offsets in local_shards(mine[name]) if name in mine else ():
                corner = zip(offsets, piece.shape, strict=False)
                whole[name][tuple(slice(start, start + size) for start, size in corner)] = piece
            dist.all_reduce(whole[name])
        return whole


def from_scratch(out: Path, types: dict[str, str], steps: int = 4) -> None:
    """Trains, and saves a checkpoint without waiting while it trains on."""
    run = Run(config(types))
    seen: dict[str, Any] = {"start": run.whole_state(), "plan": run.plan.to_json()}
    seen["losses"], seen["end"] = run.train(steps), run.whole_state()
    saved = dcp.async_save(run.state(), checkpoint_id=out / "checkpoint", process_group=dist.new_group(backend="gloo"))
    run.train(1)
    saved.result()
    _keep(out, seen)


def resumed(out: Path, types: dict[str, str], former: Path) -> None:
    """Loads the checkpoint of another run, with another number of workers or other sharding types, and saves it."""
    pins = Pins.from_json(torch.load(former / "seen.pt")["plan"])
    run = Run(config(types), pins)
    seen: dict[str, Any] = {"start": run.whole_state(), "plan": run.plan.to_json()}
    dcp.load(run.state(), checkpoint_id=former / "checkpoint")
    seen["end"] = run.whole_state()
    dcp.save(run.state(), checkpoint_id=out / "checkpoint")
    _keep(out, seen)


def optimized(out: Path, **sparse_optimizer: Any) -> None:
    """One step of a fused optimizer on a table; gradients are those of the sum of all outputs."""
    run = Run(config({"by_rows": "row_wise"}, **sparse_optimizer))
    before = run.whole_state()
    for rate in (0.5, 0.25):
        kjt, dense, _ = run.batch(0)
        run.optimizer.zero_grad()
        run.optimizer.set_learning_rates(sparse=rate, dense=0.0)
        run.model(kjt, dense).sum().backward()
        run.optimizer.step()
    kjt, dense, _ = run.batch(0)
    _keep(out, {"before": before, "after": run.whole_state(), "kjt": kjt, "dense": dense})


def dense_optimized(out: Path, kind: str) -> None:
    """The same steps with the dense optimizer's state created beforehand, and by the first step."""
    types = {"by_rows": "data_parallel"}
    wanted = config(types, dense={"kind": kind, "weight_decay": 0.1})
    early, late = Run(wanted), Run(wanted, with_state=False)
    seen = {"keys": list(early.state()), "early": early.train(4), "late": late.train(4)}
    _keep(out, seen | {"early_state": early.whole_state(), "late_state": late.whole_state()})


def _keep(out: Path, seen: dict[str, Any]) -> None:
    if dist.get_rank() == 0:
        torch.save(seen, out / "seen.pt")


def _worker(rank: int, world_size: int, out: Path, target: Any, arguments: dict[str, Any]) -> None:
    os.environ["LOCAL_WORLD_SIZE"] = str(world_size)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/store", rank=rank, world_size=world_size)
    target(out, **arguments)
    dist.barrier()
    dist.destroy_process_group()


def launch(out: Path, world_size: int, target: Any, **arguments: Any) -> None:
    out.mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_worker, args=(r, world_size, out, target, arguments)) for r in range(world_size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not any(worker.exitcode for worker in workers), [worker.exitcode for worker in workers]


def main(root: Path) -> None:
    for world_size in (1, 2):
        launch(root / f"scratch_{world_size}", world_size, from_scratch, types=TYPES)
        launch(root / f"dense_{world_size}", world_size, from_scratch, types={})
    launch(root / "to_3", 3, resumed, types=SWAPPED, former=root / "scratch_2")
    launch(root / "to_1", 1, resumed, types=TYPES, former=root / "to_3")
    for kind, weight_decay in (("rowwise_adagrad", 0.0), ("rowwise_adagrad", 0.1), ("adagrad", 0.0), ("sgd", 0.0)):
        out = root / f"{kind}_{weight_decay:g}"
        launch(out, 1, optimized, kind=kind, weight_decay=weight_decay)
    for kind in ("adam", "adamw", "sgd", "adagrad"):
        launch(root / f"dense_{kind}", 1, dense_optimized, kind=kind)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
