"""A batch whose loss is no number trains nothing: tables, top, optimizers and balance stay as they are."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from configs.schema import Config
from embeddings.tables import local_shards
from tests.trainer.workers import FORKSERVER
from trainer.build import build
from trainer.checkpoint.state import training_state
from trainer.data.reading.batch import Batch
from trainer.pipeline import train_pipeline

ROWS, STEPS, POISONED = 24, 6, 3  # of the global batch; the batch that is left out
SHARDING = {"rows": "row_wise", "whole": "table_wise", "columns": "column_wise", "copied": "data_parallel"}


def config(non_finite: str = "skip", **training: Any) -> Config:
    tables = {
        name: {"num_embeddings": 20, "embedding_dim": 256 if kind == "column_wise" else 8, "sharding": kind}
        for name, kind in SHARDING.items()
    }
    return Config.model_validate(
        {
            "data": {"root": "unused", "global_batch_size": ROWS, "lanes": 6},
            "features": {**{name: {"table": name} for name in SHARDING}, "age": {"width": 3}},
            "tables": tables,
            "model": {"expert_layers": [8, 4], "tower_layers": [4], "dropout": 0.2, "load_balance": 0.1},
            "tasks": {"click": {}, "seconds": {"loss": "mse"}},
            "training": {"run_dir": "unused", "deterministic": True, "non_finite": non_finite, **training},
        }
    )


def batch(number: int, rank: int, world_size: int, poison: float | None) -> Batch:
    """This rank's rows of a global batch; `poison` in a dense column of the last rank's first row."""
    random = torch.Generator().manual_seed(number)
    ids = torch.randint(0, 20, (len(SHARDING), ROWS, 2), generator=random)
    dense, labels = torch.randn(ROWS, 3, generator=random), torch.rand(ROWS, 2, generator=random)
    count = ROWS // world_size
    mine = slice(rank * count, (rank + 1) * count)
    dense, labels = dense[mine], labels[mine]
    if poison is not None and rank == world_size - 1:
        dense[0, 1] = poison
    sparse = KeyedJaggedTensor.from_lengths_sync(
        list(SHARDING), ids[:, mine].reshape(-1), torch.full((len(SHARDING) * count,), 2, dtype=torch.int32)
    )
    keys = torch.arange(ROWS)[mine] + 1000 * number
    return Batch(sparse, dense, labels, torch.ones(count, 2), (0, number), None, keys)


def trained(settings: Config, poison: float | None, rank: int, world_size: int) -> tuple[dict[str, Tensor], list[bool]]:
    """This rank's part of the state after all batches, without the poisoned one where there is no poison."""
    built = build(settings, torch.device("cpu"), world_size, None)
    numbers = [number for number in range(STEPS) if poison is not None or number != POISONED]
    batches = iter([batch(n, rank, world_size, poison if n == POISONED else None) for n in numbers])
    pipeline, sound = train_pipeline(built, torch.device("cpu")), []
    built.model.train()
    built.optimizer.set_learning_rates(0.1, 0.01)
    for _ in numbers:
        outputs = pipeline.progress(batches)
        sound.append(bool(outputs.is_sound))
        if settings.training.non_finite == "skip":
            assert all(bool(values.isfinite().all()) for values in (*outputs[:5], *outputs.gates.values()))
    state = training_state(built.model, built.optimizer)
    parts = {f"{name} {at}": shard for name, value in state.items() for shard, at in local_shards(value)}
    return {name: part.detach().clone() for name, part in parts.items()}, sound


def compare(rank: int, world_size: int, store: str, result: str, cases: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    lines = []
    for case in cases:
        without, _ = trained(config(**case), None, rank, world_size)
        for poison in (float("inf"), float("nan")):
            left_out, sound = trained(config(**case), poison, rank, world_size)
            assert [n for n, is_sound in enumerate(sound) if not is_sound] == [POISONED]
            lines += [f"{case} {name}" for name in without if not _same(without[name], left_out[name])]
    spoiled, _ = trained(config("stop"), float("nan"), rank, world_size)
    assert any(bool(value.isnan().any()) for value in spoiled.values()), "the poison is one"
    Path(f"{result}.{rank}").write_text("\n".join(lines))
    dist.destroy_process_group()
    os._exit(0)  # fbgemm's threads sometimes abort a normal exit


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)  # NaN: losses that a balance has not seen


CASES: list[dict[str, Any]] = [
    {"clip_gradient_norm": 0.5},
    {"task_balance": "gradnorm", "sparse_optimizer": {"kind": "adagrad"}},
    {"task_balance": "uncertainty", "dense_optimizer": {"kind": "adamw", "weight_decay": 0.1}},
    {"task_balance": "cagrad", "sparse_optimizer": {"kind": "sgd"}, "dense_optimizer": {"kind": "adagrad"}},
]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("world_size", "cases"),
    [
        (3, CASES[1:3]),
        pytest.param(1, CASES, marks=SLOW),
        pytest.param(2, CASES, marks=SLOW),
        pytest.param(3, CASES, marks=SLOW),
    ],
)
def test_a_batch_that_is_left_out_might_as_well_not_have_been(
    world_size: int, cases: list[dict[str, Any]], tmp_path: Path
) -> None:
    store, result = tempfile.mktemp(prefix="store-"), str(tmp_path / "different")
    arguments = world_size, store, result, cases
    ranks = [FORKSERVER.Process(target=compare, args=(rank, *arguments)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=200)
    assert [process.exitcode for process in ranks] == [0] * world_size
    assert [Path(f"{result}.{rank}").read_text() for rank in range(world_size)] == [""] * world_size
