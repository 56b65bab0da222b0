"""The vocabularies of a run stay what they were at its first start, whatever becomes of the files."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.load import load_config
from configs.schema import Config
from embeddings.features.feature_transforms import FeatureTransforms
from embeddings.features.files import files_of, with_files
from tests.trainer.workers import FORKSERVER, losses, train_on, wait
from trainer.run.run_directory import RunDirectory
from trainer.run.vocabularies import changed_vocabularies, features_of, keep_vocabularies

WORDS = ["red", "green", "blue"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Two features that share a vocabulary, and data for them."""
    path = tmp_path / "colours.txt"
    path.write_text("\n".join(WORDS))
    sparse = {"table": "t", "transform": "vocabulary", "vocabulary": str(path)}
    words = [WORDS[i % 3] for i in range(256)]
    rows = pa.table({"front": words, "back": words[::-1], "click": np.arange(256) % 3 // 2})
    (tmp_path / "data" / "train").mkdir(parents=True)
    pq.write_table(rows, tmp_path / "data" / "train" / "part-0.parquet")
    return Config.model_validate(
        {
            "data": {"root": str(tmp_path / "data"), "global_batch_size": 32, "lanes": 2},
            "features": {"front": sparse, "back": sparse},
            "tables": {"t": {"num_embeddings": 10, "embedding_dim": 4}},
            "model": {"num_experts": 2, "expert_layers": [4], "tower_layers": [4]},
            "tasks": {"click": {}},
            "training": {"run_dir": str(tmp_path / "run"), "log_every": 1},
            "launch": {"workers": 1, "device": "cpu"},
        }
    )


def path_of(config: Config) -> Path:
    return Path(files_of(config.features)["front"])


@pytest.fixture
def run(config: Config) -> RunDirectory:
    run = RunDirectory(config.training.run_dir)
    keep_vocabularies(run, config)
    return run


def rows_of(run: RunDirectory, config: Config) -> list[int]:
    features = FeatureTransforms(features_of(run, config), config.tables)
    return features(pa.table({"front": WORDS, "back": WORDS}), "").sparse["back"].values.tolist()


def test_a_file_that_is_written_anew_changes_nothing_and_is_told(run: RunDirectory, config: Config) -> None:
    assert changed_vocabularies(run, config, config) == []
    path_of(config).write_text("\n".join(WORDS[::-1]))
    assert rows_of(run, config) == [1, 2, 3]
    keep_vocabularies(run, config)
    assert rows_of(run, config) == [1, 2, 3]
    lines = changed_vocabularies(run, config, config)
    assert [line.partition(": ")[0] for line in lines] == ["features.front.vocabulary", "features.back.vocabulary"]
    assert str(path_of(config)) in lines[0]


def test_a_file_that_is_gone_is_not_needed(run: RunDirectory, config: Config) -> None:
    path_of(config).unlink()
    keep_vocabularies(run, config)
    assert rows_of(run, config) == [1, 2, 3]
    assert changed_vocabularies(run, config, config) == []


def test_features_share_a_copy(run: RunDirectory) -> None:
    assert len(list(run.vocabularies.iterdir())) == 1


def test_a_moved_file_is_accepted_and_another_one_refused(run: RunDirectory, config: Config) -> None:
    moved = path_of(config).rename(path_of(config).with_name("moved.txt"))
    other = config.model_copy(update={"features": with_files(config.features, {"front": str(moved)})})
    assert changed_vocabularies(run, config, other) == []
    moved.write_text("red\ngreen\n")
    with pytest.raises(UserError, match=r"^features.front.vocabulary: .*moved.txt differs from .*colours.txt"):
        changed_vocabularies(run, config, other)


@pytest.mark.parametrize(("content", "what"), [(b"red\n", "damaged"), (None, "missing")])
def test_a_copy_that_is_not_whole_is_refused(run: RunDirectory, config: Config, content: bytes, what: str) -> None:
    (copy,) = run.vocabularies.iterdir()
    copy.unlink()
    if content is not None:
        copy.write_bytes(content)
    with pytest.raises(UserError, match=f"vocabulary of features.front, is {what}\n"):
        features_of(run, config)


def test_a_run_without_copies_reads_the_files_of_its_config(config: Config) -> None:
    assert features_of(RunDirectory(config.training.run_dir), config) == config.features


def test_an_evaluation_reads_the_copy(config: Config, tmp_path: Path) -> None:
    (tmp_path / "data" / "validation").symlink_to(tmp_path / "data" / "train")
    train_on(config, 1)
    path_of(config).write_text("\n".join(WORDS[::-1]))
    arguments = (config.training.run_dir, str(tmp_path / "store"), str(tmp_path / "measured.json"))
    measuring = FORKSERVER.Process(target=_measure, args=arguments)
    measuring.start()
    assert wait([measuring]) == [0]
    measured = json.loads((tmp_path / "measured.json").read_text())
    last = json.loads(RunDirectory(config.training.run_dir).metrics.read_text().splitlines()[-1])
    assert last["kind"] == "eval"
    assert measured["click"]["loss"] == pytest.approx(last["loss/click"], rel=1e-6)


def _measure(run_dir: str, store: str, out: str) -> None:
    import torch.distributed as dist

    from cluster.worker import Worker
    from trainer.commands.evaluate import measure_on_worker

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    worker = Worker(0, 1, 0, 1, "localhost", "cpu", lambda line: None)
    argument = (load_config(f"{run_dir}/config.yaml"), "validation", run_dir, "latest")
    Path(out).write_text(json.dumps(measure_on_worker(argument, worker)["tasks"]))
    os._exit(0)


def test_a_resumed_run_trains_with_its_own(config: Config, tmp_path: Path) -> None:
    def until(step: int, run: str) -> Config:
        changes = {"run_dir": str(tmp_path / run), "max_steps": step}
        return config.model_copy(update={"training": config.training.model_copy(update=changes)})

    train_on(until(4, "run"), 1)
    train_on(until(8, "undisturbed"), 1)
    path_of(config).write_text("\n".join(WORDS[::-1]))
    train_on(until(8, "run"), 1, resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "undisturbed")
