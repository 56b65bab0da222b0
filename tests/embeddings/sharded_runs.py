"""Small sharded runs with real processes, for test_sharding.py: run as a script, it writes what each run saw.

Torchrec is imported once; the workers of every run are forked from this process, which computes nothing itself.
"""

import multiprocessing
import os
import sys
from itertools import product
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
from embeddings.pooling import pooled_by_feature
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
FORMS = {
    f"{sharding}_{data_type}_{pooling}_{features}": (sharding, data_type, pooling, features)
    for sharding in ("row_wise", "table_wise", "table_row_wise", "column_wise", "data_parallel")
    for data_type in ("fp32", "fp16")
    for pooling in ("sum", "mean")
    for features in (1, 2)
    if (sharding, data_type) != ("data_parallel", "fp16")
}
"""Every table that a config accepts: sharding, data type, pooling, and how many features look it up."""
FUSED = ("rowwise_adagrad", "adagrad", "sgd")  # on a CPU
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


def config_of_forms(kind: str, *, weighted: bool) -> Config:
    """All of FORMS; with `weighted`, the features of tables that sum have weights."""
    tables, features = {}, {}
    for name, (sharding, data_type, pooling, count) in FORMS.items():
        width = 256 if sharding == "column_wise" else 8  # TorchRec's planner cuts it in two
        form = {"sharding": sharding, "data_type": data_type, "pooling": pooling}
        tables[name] = {"num_embeddings": 50, "embedding_dim": width, "init_scale": 0.5, **form}
        for number in range(count):
            weights = {"weights": "w"} if weighted and pooling == "sum" else {}
            features[f"{name}_{number}"] = {"table": name, "column": f"{name}_{number}", **weights}
    return Config.model_validate(
        {
            "data": {"root": "d", "global_batch_size": GLOBAL_BATCH_SIZE},
            "features": features | {"age": {}},
            "tables": tables,
            "tasks": {"click": {}},
            "training": {"run_dir": "r", "sparse_optimizer": {"kind": kind}},
        }
    )


class Model(nn.Module):
    def __init__(self, tables: nn.Module | None, config: Config, top: nn.Module | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tables = tables
        self.features = list(config.sparse_features)
        self.means = [name for name, table in config.tables_by_feature.items() if table.pooling == "mean"]
        self.top = top or nn.Sequential(nn.Linear(config.input_layout.width, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, kjt: KeyedJaggedTensor | None, dense: Tensor) -> Tensor:
        pooled = {}
        if self.tables is not None and kjt is not None:
            pooled = pooled_by_feature(self.tables(kjt), kjt, self.means)
        return self.top(torch.cat([dense, *(pooled[name] for name in self.features)], dim=1))


def batch(config: Config, step: int, first: int, last: int) -> tuple[KeyedJaggedTensor | None, Tensor, Tensor]:
    """Rows [first, last) of a global batch that depends on nothing but the step."""
    generator = torch.Generator().manual_seed(step)
    dense, labels = torch.rand(2, GLOBAL_BATCH_SIZE, 1, generator=generator)
    values, weights, lengths = [], [], []
    for feature in config.sparse_features.values():
        bags = torch.randint(0, 4, (GLOBAL_BATCH_SIZE,), generator=generator)
        ids = torch.randint(0, 50, (int(bags.sum()),), generator=generator)
        drawn = torch.rand(len(ids), generator=generator)
        mine = slice(int(bags[:first].sum()), int(bags[:last].sum()))
        values.append(ids[mine])
        weights.append(drawn[mine] if feature.weights else torch.ones_like(drawn[mine]))
        lengths.append(bags[first:last])
    if not values:
        return None, dense[first:last], labels[first:last]
    is_weighted = any(feature.weights for feature in config.sparse_features.values())
    kjt = KeyedJaggedTensor(
        list(config.sparse_features), torch.cat(values), torch.cat(weights) if is_weighted else None, torch.cat(lengths)
    )
    return kjt, dense[first:last], labels[first:last]


class Run:
    """One rank of a run that is ready to train."""

    def __init__(
        self, config: Config, pins: Pins | None = None, *, with_state: bool = True, top: nn.Module | None = None
    ) -> None:
        self.config, self.rank, self.world_size = config, dist.get_rank(), dist.get_world_size()
        group = dist.group.WORLD
        tables = build_tables(config, torch.device("meta"))
        if tables is not None:
            attach_sparse_optimizer(tables, config, CPU)
        self.plan = plan_tables(tables, config, self.world_size, self.world_size, CPU, pins=pins, group=group)
        self.model = shard(Model(tables, config, top), self.plan, CPU, group)
        initialize_tables(self.model, config)
        self.optimizer = combined_optimizer(self.model, config.training)
        if with_state:
            self.optimizer.initialize_state()

    def batch(self, step: int) -> tuple[KeyedJaggedTensor | None, Tensor, Tensor]:
        """This rank's rows of a global batch."""
        first, last = (r * GLOBAL_BATCH_SIZE // self.world_size for r in (self.rank, self.rank + 1))
        return batch(self.config, step, first, last)

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


def every_form(out: Path, kind: str, weighted: bool) -> None:
    """Three steps of every table that a config accepts; the gradient of a row's pooled rows is given."""
    run = Run(config_of_forms(kind, weighted=weighted), top=nn.Identity())
    seen: dict[str, Any] = {"start": run.whole_state()}
    first, last = (r * GLOBAL_BATCH_SIZE // run.world_size for r in (run.rank, run.rank + 1))
    for step in range(3):
        kjt, dense, _ = run.batch(step)
        run.optimizer.zero_grad()
        run.optimizer.set_learning_rates(**RATES[step])
        outputs = run.model(kjt, dense)
        outputs.backward(gradients(run.config, step)[first:last] * run.world_size)
        run.optimizer.step()
    _keep(out, seen | {"end": run.whole_state()})


RATES = [{"sparse": rate, "dense": rate / 10} for rate in (0.1, 0.2, 0.3)]


def gradients(config: Config, step: int) -> Tensor:
    """[B, D] for the whole batch, as of a mean over it."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(GLOBAL_BATCH_SIZE, config.input_layout.width, generator=generator) / GLOBAL_BATCH_SIZE


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
    for kind, weighted, world_size in product(FUSED, (False, True), (1, 2)):
        launch(root / f"{kind}_{weighted}_{world_size}", world_size, every_form, kind=kind, weighted=weighted)
    for kind in ("adam", "adamw", "sgd", "adagrad"):
        launch(root / f"dense_{kind}", 1, dense_optimized, kind=kind)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
