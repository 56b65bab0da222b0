"""Every kind of table that the config accepts on a CPU is trained, saved, resumed, evaluated and exported.

One run holds a table of each kind. What the tables learn is compared with plain torch in tests/embeddings.
"""

import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch._inductor import config as inductor

from configs.checks import check
from configs.fused_optimizers import KERNELS
from configs.schema import Config, TableConfig
from tests.trainer.checkpoint.whole_tensors import read_tensors
from tests.trainer.test_train import assert_same_bits, final_state, relative
from tests.trainer.workers import evaluate_on, losses, train_on
from trainer.checkpoint.files import find
from trainer.export.write import export
from trainer.run.folder import Folder
from trainer.run.processor import bf16_warning

FUSED = [kind for kind, kernels in KERNELS.items() if "cpu" in kernels.devices]
SHARDINGS = get_args(TableConfig.model_fields["sharding"].annotation)
DATA_TYPES = get_args(TableConfig.model_fields["data_type"].annotation)
FORMS = ("sum", "mean", "weighted")
DENSE = {"rowwise_adagrad": "adam", "adagrad": "adagrad", "sgd": "sgd"}
"""The optimizer of data-parallel tables in a run with such a fused one."""
BF16 = pytest.param("bf16", marks=pytest.mark.skipif(bf16_warning("bf16", "cpu") is not None, reason="no BF16 here"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("accepted") / "data")


def write_data(root: Path) -> Path:
    """Lists of IDs and weights, some empty or null, and two tasks."""
    random = np.random.default_rng(0)
    for part, rows in (("train", 640), ("validation", 200)):
        lists = [random.integers(0, 1000, n).tolist() if n else None for n in random.integers(0, 4, rows)]
        table = {
            "ids": pa.array(lists, pa.list_(pa.int64())),
            "weights": pa.array([None if ids is None else random.random(len(ids)) for ids in lists]),
            "number": random.random(rows, np.float32),
            "click": random.integers(0, 2, rows),
            "watch": random.random(rows, np.float32),
        }
        (root / part).mkdir(parents=True)
        pq.write_table(pa.table(table), root / part / "part-0.parquet", row_group_size=100)
    return root


def config_of(data: Path, run_dir: Path, names: Iterable[str], **training: Any) -> Config:
    """A table for each name, which says its sharding, data type and form, with a feature. Saves after three steps."""
    tables, features = {}, {}
    for name in names:
        sharding, data_type, form = name.split("-")
        width = 256 if sharding == "column_wise" else 8  # TorchRec's planner cuts it in two
        tables[name] = {"num_embeddings": 50, "embedding_dim": width, "init_scale": 0.2}
        tables[name] |= {"sharding": sharding, "data_type": data_type, "pooling": "mean" if form == "mean" else "sum"}
        features[f"id-{name}"] = {"table": name, "column": "ids"}
        if form == "weighted":
            features[f"id-{name}"]["weights"] = "weights"
    return Config.model_validate(
        {
            "data": {"root": str(data), "global_batch_size": 64, "lanes": 2},
            "features": features | {"number": {}},
            "tables": tables,
            "model": {"expert_layers": (16,), "tower_layers": (8,)},
            "tasks": {"click": {}, "watch": {"loss": "mse"}},
            "training": {"run_dir": str(run_dir), "log_every": 1, "max_steps": 6, "deterministic": True, **training},
            "checkpoint": {"every_steps": 3},
            "launch": {"device": "cpu"},
        }
    )


def accepted(data: Path, run_dir: Path, **training: Any) -> Config:
    """A table of every kind that the checks of a config let pass with these settings."""
    names = ["-".join(parts) for parts in product(SHARDINGS, DATA_TYPES, FORMS)]
    passing = [name for name in names if not check(config_of(data, run_dir, [name], **training))]
    assert len(names) - len(passing) == len(FORMS)  # data_parallel in 16 bits
    return config_of(data, run_dir, passing, **training)


def go_the_whole_way(config: Config, world_size: int) -> None:
    """Trains three steps, resumes for three, and evaluates the checkpoint."""
    run_dir = Path(config.training.run_dir)
    first = config.training.model_copy(update={"max_steps": 3})
    train_on(config.model_copy(update={"training": first}), world_size)
    train_on(config, world_size, resume=True)
    last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    evaluated = evaluate_on(config, world_size)
    assert (last["kind"], last["step"]) == ("eval", 6)
    assert {metric: last[metric] for metric in evaluated} == evaluated != {}


def assert_all_of_it_trains(run_dir: Path) -> None:
    """Every table has moved between its two checkpoints, and is finite."""
    complete, damaged = find(Folder(run_dir / "checkpoints"))
    assert (damaged, [checkpoint.step for checkpoint in complete]) == ({}, [6, 3])
    after, before = (read_tensors(checkpoint, is_table) for checkpoint in complete)
    assert after
    assert [
        name for name in after if not torch.isfinite(after[name]).all() or torch.equal(after[name], before[name])
    ] == []


def is_table(name: str) -> bool:
    return name.startswith("model/tables.")


def test_a_run_with_16_bit_tables_resumes_and_is_evaluated(data: Path, tmp_path: Path) -> None:
    names = ["row_wise-fp16-sum", "table_wise-fp16-weighted", "auto-fp32-mean"]
    go_the_whole_way(config_of(data, tmp_path / "resumed", names), 2)
    train_on(config_of(data, tmp_path / "undisturbed", names), 2)
    assert_same_bits(final_state(tmp_path / "resumed"), final_state(tmp_path / "undisturbed"))
    assert_all_of_it_trains(tmp_path / "resumed")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", BF16])
@pytest.mark.parametrize("kind", FUSED)
def test_every_kind_goes_the_whole_way(data: Path, tmp_path: Path, kind: str, precision: str) -> None:
    optimizers = {"sparse_optimizer": {"kind": kind}, "dense_optimizer": {"kind": DENSE[kind]}}
    for world_size in (1, 2):  # the second is exported
        resumed, undisturbed = (tmp_path / f"{name}_{world_size}" for name in ("resumed", "undisturbed"))
        go_the_whole_way(accepted(data, resumed, precision=precision, **optimizers), world_size)
        train_on(accepted(data, undisturbed, precision=precision, **optimizers), world_size)
        assert_same_bits(final_state(resumed), final_state(undisturbed))
        assert_all_of_it_trains(resumed)
    with inductor.patch({"cpp.cxx": ("/no/such/compiler",)}):  # compiling takes half a minute
        export(str(resumed))  # refuses a bundle that scores otherwise than the trainer's modules
    one, two = losses(tmp_path / "resumed_1"), losses(tmp_path / "resumed_2")
    assert max(relative(one[step], two[step]) for step in one) < (1e-5 if precision == "fp32" else 1e-2)
