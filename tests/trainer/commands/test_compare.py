"""What the comparison trains."""

from pathlib import Path

import pytest

from configs.errors import UserError
from configs.schema import ModelConfig, TaskConfig
from tests.models.configs import config_of
from trainer.commands.compare import compare_runs, names_of, variant


def test_a_variant_differs_in_top_seed_and_directory_alone(tmp_path: Path) -> None:
    config = config_of(ModelConfig(), {"click": TaskConfig()}, {"x": 4})
    config = config.model_copy(update={"training": config.training.model_copy(update={"run_dir": str(tmp_path)})})
    one = variant(config, "ple", 3)
    assert one.training.run_dir == f"{config.training.run_dir}/ple-seed3"
    back = {"seed": config.training.seed, "run_dir": config.training.run_dir}
    training, model = one.training.model_copy(update=back), one.model.model_copy(update={"top": config.model.top})
    assert one.model_copy(update={"training": training, "model": model}) == config


@pytest.mark.parametrize(("tops", "said"), [("", "no top"), (" , ", "no top"), ("mmoe, ple,mmoe", "mmoe more")])
def test_tops_are_named_once(tops: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        names_of(tops)
    assert names_of("mmoe, ple,") == ["mmoe", "ple"]


def test_the_folder_of_something_else_is_not_taken(tmp_path: Path) -> None:
    config = config_of(ModelConfig(), {"click": TaskConfig()}, {"x": 4})
    config = config.model_copy(update={"training": config.training.model_copy(update={"run_dir": str(tmp_path)})})
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events").write_text("of another program")
    with pytest.raises(UserError, match="is there already"):
        compare_runs(config, ["mmoe"], 1, None)
    assert [path.name for path in tmp_path.rglob("*")] == ["tensorboard", "events"]


def test_a_variant_keeps_the_settings_of_its_own_top_alone() -> None:
    config = config_of(ModelConfig(top="ple", options={"num_levels": 3}), {"click": TaskConfig()}, {"x": 4})
    assert variant(config, "ple", 0).model.options == {"num_levels": 3}
    assert variant(config, "mmoe", 0).model.options == {}
