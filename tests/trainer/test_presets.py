"""Every preset that generates its data trains: two steps on few rows, with the model and the features it has."""

import math
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from configs.load import load_config
from configs.schema import Config
from tests.trainer.workers import losses, train_on

PRESETS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))
GENERATING = [path for path in PRESETS if load_config(path).data.generate]


LARGE = {"criteo_shaped", "dlrm_mlperf"}  # over ten seconds


def marked(preset: Path) -> ParameterSet:
    return pytest.param(preset, marks=[pytest.mark.slow] if preset.stem in LARGE else [])


def small(preset: Path, folder: Path) -> Config:
    """The preset with few rows, and with small tables where one key sets their size."""
    overrides = [
        f"data.root={folder / 'data'}",
        "data.global_batch_size=64",
        "data.generate.train_rows=512",
        "data.generate.validation_rows=64",
        "data.generate.rows_per_file=256",
        "data.generate.rows_per_row_group=64",
        f"training.run_dir={folder / 'run'}",
        "training.max_steps=2",
        "training.log_every=1",
    ]
    if "${data.generate.options.max_cardinality}" in preset.read_text():
        overrides.append("data.generate.options.max_cardinality=100")
    return load_config(preset, overrides)


def test_there_are_presets_that_generate_their_data() -> None:
    assert {"quickstart", "reference_mmoe", "criteo_shaped", "dlrm_mlperf", "dlrm_serving"} <= {
        path.stem for path in GENERATING
    }


@pytest.mark.parametrize("preset", [marked(path) for path in GENERATING], ids=lambda path: path.stem)
def test_it_trains_two_steps(preset: Path, tmp_path: Path) -> None:
    train_on(small(preset, tmp_path), 1)
    found = losses(tmp_path / "run")
    assert list(found) == [1, 2]
    assert all(math.isfinite(loss) and loss > 0 for loss in found.values())
