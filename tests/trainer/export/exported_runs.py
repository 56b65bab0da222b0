"""Run directories with a checkpoint of random weights, for the tests of export and serving."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch._inductor import config as inductor

from configs.load import dump_config
from configs.schema import CheckpointConfig, Config
from embeddings.tables import build_tables, initialize_tables
from models.build import top_of
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.data.dataset.manifest import Manifest
from trainer.export.write import export
from trainer.run.manifests import keep_manifest
from trainer.run.run_directory import RunDirectory

TASKS = {"click": {}, "watch": {"loss": "mse"}}
TABLES = {
    "user": {"num_embeddings": 1000, "embedding_dim": 8},
    "item": {"num_embeddings": 500, "embedding_dim": 8, "init_scale": 1.0},
    "tag": {"num_embeddings": 50, "embedding_dim": 4, "pooling": "mean", "data_type": "fp16", "init_scale": 1.0},
    "bucket": {"num_embeddings": 50, "embedding_dim": 4, "data_type": "fp16", "init_scale": 1.0},
}
SPARSE = {
    "liked": {"table": "item", "max_length": 5},
    "user": {"table": "user"},
    "item": {"table": "item", "transform": "identity", "weights": "item_weight"},
    "tag": {"table": "tag", "transform": "vocabulary"},
    "age": {"table": "bucket", "transform": "bucketize", "boundaries": [10, 20, 30]},
}
DENSE = {"price": {"transform": "log1p"}, "vector": {"width": 3, "default": 0.5}}


def rows(count: int) -> pa.Table:
    """Raw rows for all of the features above, with nulls and empty lists."""
    random = np.random.default_rng(1)
    lists = [random.integers(0, 500, n).tolist() if n else None for n in random.integers(0, 8, count)]
    return pa.table(
        {
            "row": np.arange(count),
            "liked": pa.array(lists, pa.list_(pa.int64())),
            "user": [None if i % 7 == 0 else f"user_{i}" for i in range(count)],
            "item": pa.array(lists, pa.list_(pa.int64())),
            "item_weight": [None if ids is None else random.random(len(ids)).tolist() for ids in lists],
            "tag": [["a", "z"] if i % 2 else [] for i in range(count)],
            "age": random.integers(0, 50, count),
            "price": random.random(count) * 100,
            "vector": [None if i % 5 == 0 else random.random(3).tolist() for i in range(count)],
            "click": random.integers(0, 2, count),
        }
    )


def make_run(
    folder: Path,
    features: dict | None = None,
    tasks: dict | None = None,
    top: str = "mmoe",
    data: pa.Table | None = None,
) -> Config:
    """A run in `folder`/run that was saved at step 7, and data in `folder`/data: `rows`, if none is given."""
    data = rows(300) if data is None else data
    (folder / "tags.txt").write_text("a\nb\nc\n")
    features = {name: dict(f) for name, f in (SPARSE | DENSE if features is None else features).items()}
    if "tag" in features:
        features["tag"]["vocabulary"] = str(folder / "tags.txt")
    config = Config.model_validate(
        {
            "data": {"root": str(folder / "data"), "global_batch_size": 64},
            "features": features,
            "tables": {name: t for name, t in TABLES.items() if name in {f.get("table") for f in features.values()}},
            "model": {"top": top, "normalization": "layer"},
            "tasks": TASKS if tasks is None else tasks,
            "training": {"run_dir": str(folder / "run")},
        }
    )
    (folder / "data" / "validation").mkdir(parents=True)
    pq.write_table(data, folder / "data" / "validation" / "part-0.parquet")
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text(dump_config(config))
    keep_manifest(RunDirectory(folder / "run"), "train", Manifest(str(folder / "data"), (), (data.schema,)))
    save(config)
    return config


def save(config: Config, step: int = 7) -> None:
    """Saves initial weights as a checkpoint at `step`."""
    torch.manual_seed(0)
    state = {}
    tables = build_tables(config, torch.device("cpu"))
    if tables is not None:
        initialize_tables(tables, config)
        state |= {f"model/tables.{name}": value for name, value in tables.state_dict().items()}
    top = top_of(config)
    state |= {f"model/top.{name}": value for name, value in top.state_dict().items()}
    checkpointer = Checkpointer(Path(config.training.run_dir) / "checkpoints", CheckpointConfig(), {"fingerprint": "f"})
    checkpointer.save(state, step=step, epoch=1, epoch_step=3, blocking=True)
    checkpointer.wait()


def exported(folder: Path, after: Callable[[Config], None] | None = None, **given) -> Path:
    """The bundle of such a run, with a program that is not compiled. after: is called before it is exported.

    Plain ones are copies of one that is exported once: an export takes seconds.
    """
    if after is None and not given:
        return Path(shutil.copytree(_plain(), folder, dirs_exist_ok=True)) / "run" / "export"
    config = make_run(folder, **given)
    if after is not None:
        after(config)
    return _export(config)


@cache
def _plain() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="exported-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _export(make_run(folder))
    return folder


def _export(config: Config) -> Path:
    with inductor.patch({"cpp.cxx": ("/no/such/compiler",)}):
        return export(config.training.run_dir)
