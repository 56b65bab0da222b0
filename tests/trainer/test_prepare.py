"""What is found before workers start, and that a dry run finds the same."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import Config
from trainer.checkpoint.files import Checkpoint, folder_name, write_complete
from trainer.prepare import check_run, prepare_run
from trainer.run.folder import Folder
from trainer.run.manifests import read_manifest
from trainer.run.paths import with_absolute_paths
from trainer.run.position import Position
from trainer.run.run_directory import RunDirectory

TIME = {"column": "time", "half_life_days": 7}


def config_of(root: Path, **changes) -> Config:
    sections = {
        "data": {"root": str(root / "data"), "global_batch_size": 8, "lanes": 2},
        "features": {"city": {"table": "t", "transform": "vocabulary", "vocabulary": str(root / "cities.txt")}},
        "tables": {"t": {"num_embeddings": 10, "embedding_dim": 4}},
        "tasks": {"click": {}},
        "training": {"run_dir": str(root / "run")},
    }
    return Config.model_validate(sections | changes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cities.txt").write_text("Oslo\nRome\n")
    columns = {"city": ["Oslo", "Rome"] * 8, "click": np.arange(16) % 2, "time": np.arange(16) * 10**12}
    for part in ("train", "validation"):
        (tmp_path / "data" / part).mkdir(parents=True)
        pq.write_table(pa.table(columns), tmp_path / "data" / part / "a.parquet")
    return tmp_path


def say(line: str) -> None:
    pass


MADE = {"root": "made", "generate": {"kind": "criteo", "train_rows": 5000}, "global_batch_size": 8, "lanes": 2}
CITY = {"table": "t", "transform": "vocabulary"}
MISTAKES = {
    "validation part": ({}, "validation/a.parquet: there is no column 'city'"),
    "vocabulary": (
        {"features": {"city": {"table": "t", "transform": "vocabulary", "vocabulary": "no"}}},
        "no cannot be",
    ),
    "unit of times": ({"tasks": {"click": {"reweight": {"time_decay": TIME}}}}, "which is no date in s"),
    "warm-up": (
        {"training": {"run_dir": "run", "warmup_steps": 2}},
        "warm-up would not end before the run, which has 2",
    ),
    "generated columns": ({"data": MADE}, "there is no column 'city'"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_dry_run_refuses_what_a_run_refuses(root: Path, mistake: str) -> None:
    changes, message = MISTAKES[mistake]
    if mistake == "validation part":
        pq.write_table(pa.table({"click": [0, 1]}), root / "data" / "validation" / "a.parquet")
    if mistake == "warm-up":
        changes = {"training": changes["training"] | {"run_dir": str(root / "run")}}
    if mistake == "generated columns":
        changes = {"data": MADE | {"root": str(root / "made")}}
    config = config_of(root, **changes)
    with pytest.raises(UserError, match=message) as dry:
        check_run(config, resume=False, overwrite=False, say=say)
    assert not (root / "made").exists()
    with pytest.raises(UserError, match=message) as real:
        prepare_run(config, resume=False, overwrite=False, say=say)
    assert str(dry.value) == str(real.value)
    assert not (root / "run").exists()


def test_a_dry_run_accepts_what_a_run_accepts(root: Path) -> None:
    check_run(config_of(root), resume=False, overwrite=False, say=say)
    prepare_run(config_of(root), resume=False, overwrite=False, say=say)
    assert {path.name for path in (root / "run").iterdir()} >= {"config.yaml", "manifest.json", "vocabularies.json"}


def test_a_run_that_lost_its_list_of_files_resumes_with_the_same_files_alone(root: Path) -> None:
    config, run = config_of(root), RunDirectory(root / "run")
    prepare_run(config, resume=False, overwrite=False, say=say)
    manifest = read_manifest(run, "train")
    assert manifest is not None
    folder = Folder(run.checkpoints).child(folder_name(1))
    folder.make()
    write_complete(Checkpoint(folder, Position(1, 0, 1), 1, {"manifest": manifest.fingerprint}, {}, {}))
    run.manifest.unlink()
    check_run(config, resume=True, overwrite=False, say=say)
    shutil.copy(root / "data/train/a.parquet", root / "data/train/b.parquet")
    with pytest.raises(UserError, match=r"manifest\.json has no list of the files of train"):
        check_run(config, resume=True, overwrite=False, say=say)


def test_paths_of_vocabularies_are_absolute(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run in other folders; a submitted job may bring the file, since the run keeps a copy."""
    job = root / "working_dir_files" / "job"
    job.mkdir(parents=True)
    monkeypatch.chdir(job)
    feature = {"table": "t", "transform": "vocabulary", "vocabulary": "cities.txt"}
    config = with_absolute_paths(config_of(root, features={"city": feature}))
    assert config.sparse_features["city"].vocabulary == str(job / "cities.txt")
    with pytest.raises(UserError, match="runs/x lies in the copy of a folder that a submitted job runs in"):
        with_absolute_paths(config_of(root, training={"run_dir": "runs/x"}))


def test_a_dry_run_finds_what_is_wrong_with_the_run_directory(root: Path) -> None:
    prepare_run(config_of(root), resume=False, overwrite=False, say=say)
    with pytest.raises(UserError, match="has a run already"):
        check_run(config_of(root), resume=False, overwrite=False, say=say)
    wider = config_of(root, tables={"t": {"num_embeddings": 10, "embedding_dim": 8}})
    with pytest.raises(UserError, match=r"tables\.t\.embedding_dim: 4 -> 8"):
        check_run(wider, resume=True, overwrite=False, say=say)
    assert check_run(wider, resume=False, overwrite=True, say=say).config == wider
    blocked = config_of(root, training={"run_dir": str(root / "cities.txt" / "run")})
    with pytest.raises(UserError, match=r"cities\.txt is not a folder"):
        check_run(blocked, resume=False, overwrite=False, say=say)


def test_a_run_that_must_be_the_same_is_refused_other_settings(root: Path) -> None:
    prepare_run(config_of(root), resume=False, overwrite=False, say=say)
    run_dir = str(root / "run")
    faster = config_of(root, training={"run_dir": run_dir, "log_every": 7, "dense_optimizer": {"learning_rate": 0.5}})
    with pytest.raises(UserError) as refused:
        prepare_run(faster, resume=True, overwrite=False, say=say, same=True)
    first, *changes, remedy = str(refused.value).splitlines()
    assert first == f"{run_dir} was trained with other settings:"
    assert changes == ["  training.dense_optimizer.learning_rate: 0.001 -> 0.5"]
    assert "--overwrite" in remedy
    prepare_run(faster, resume=True, overwrite=False, say=say)
    prepare_run(faster, resume=True, overwrite=False, say=say, same=True)
