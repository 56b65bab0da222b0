"""The comparison's table, and its rows of TensorBoard's hparams tab."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from configs.schema import Config, ModelConfig, TaskConfig
from tests.models.configs import config_of
from trainer.commands.compare import variant
from trainer.telemetry.comparison import Result, comparison, write_dashboard

TASKS = {"click": TaskConfig(), "watch": TaskConfig(loss="mse")}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = config_of(ModelConfig(), TASKS, {"x": 4})
    return config.model_copy(update={"training": config.training.model_copy(update={"run_dir": str(tmp_path)})})


@pytest.fixture
def results(config: Config) -> list[Result]:
    found = []
    for top, seed, auc in (("mmoe", 0, 0.7), ("mmoe", 1, 0.8), ("single_task", 0, 0.6), ("single_task", 1, 0.6)):
        one = variant(config, top, seed)
        run_dir = Path(one.training.run_dir)
        run_dir.mkdir()
        lines = [{"kind": "train", "step": 1, "speed/examples_per_second": 1000.0 * (1 + seed)}]
        lines += [{"kind": "eval", "step": 1, "speed/examples_per_second": 1e9}]
        (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
        found.append(Result(one, {"click": {"auc": auc, "gauc": auc - 0.1, "rows": 9.0}, "watch": {"rmse": 1.5}}))
    return found


def test_mean_and_deviation_over_seeds(results: list[Result]) -> None:
    text, values = comparison(results, "validation")
    spread = values["tops"]["mmoe"]["tasks"]["click"]["auc"]
    assert (spread["mean"], spread["std"]) == pytest.approx((0.75, 0.1 / 2**0.5))
    assert spread["runs"] == [0.7, 0.8]
    assert values["tops"]["single_task"]["examples_per_second"] == 1500
    rows = {line[:18].strip(): line[18:].split() for line in text.splitlines()[2:]}
    assert text.startswith("on validation, mean ± standard deviation over 2 seeds")
    assert rows["click auc"] == ["0.7500", "±", "0.0707", "0.6000", "±", "0.0000"]
    assert list(rows) == ["click auc", "click gauc", "watch rmse", "dense parameters", "examples/s"]
    assert rows["examples/s"] == ["1.50k", "1.50k"]


def test_the_dashboard_has_a_row_a_run_and_none_of_before(results: list[Result], tmp_path: Path) -> None:
    write_dashboard(results, tmp_path / "tensorboard")
    write_dashboard(results[1:3], tmp_path / "tensorboard")
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == ["mmoe-seed1", "single_task-seed0"]
    events = EventAccumulator(str(tmp_path / "tensorboard" / "mmoe-seed1")).Reload()
    metadata = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = plugin_data_pb2.HParamsPluginData.FromString(metadata).session_start_info.hparams
    assert settings["top"].string_value == "mmoe"
    assert settings["seed"].number_value == 1
    found = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert found == pytest.approx({"auc/click": 0.8, "gauc/click": 0.7, "rmse/watch": 1.5})
