"""What the comparison trains."""

from pathlib import Path

from configs.schema import ModelConfig, TaskConfig
from tests.models.configs import config_of
from trainer.commands.compare import variant


def test_a_variant_differs_in_top_seed_and_directory_alone(tmp_path: Path) -> None:
    config = config_of(ModelConfig(), {"click": TaskConfig()}, {"x": 4})
    config = config.model_copy(update={"training": config.training.model_copy(update={"run_dir": str(tmp_path)})})
    one = variant(config, "ple", 3)
    assert one.training.run_dir == f"{config.training.run_dir}/ple-seed3"
    back = {"seed": config.training.seed, "run_dir": config.training.run_dir}
    training, model = one.training.model_copy(update=back), one.model.model_copy(update={"top": config.model.top})
    assert one.model_copy(update={"training": training, "model": model}) == config
