"""pydantic's locations in terms of the file."""

import pytest
from pydantic import BaseModel

from configs.mistakes import key_path, models_at
from configs.schema import (
    Config,
    DataConfig,
    DenseFeature,
    DenseOptimizer,
    GenerateConfig,
    SparseFeature,
    TableConfig,
    TaskConfig,
)


@pytest.mark.parametrize(
    ("path", "models"),
    [
        ("", [Config]),
        ("data", [DataConfig]),
        ("data.generate", [GenerateConfig]),
        ("data.generate.options", []),
        ("features", []),
        ("features.any", [SparseFeature, DenseFeature]),
        ("tables.any", [TableConfig]),
        ("tasks.any", [TaskConfig]),
        ("tasks.any.weight", []),
        ("training.dense_optimizer", [DenseOptimizer]),
        ("nowhere.at.all", []),
    ],
)
def test_models_at(path: str, models: list[type[BaseModel]]) -> None:
    assert models_at(tuple(path.split("."))) == models if path else models_at(()) == models


def test_key_path_leaves_out_the_kind_of_a_feature_and_nothing_else() -> None:
    assert key_path(("features", "user", "sparse", "table")) == ("features", "user", "table")
    assert key_path(("features", "sparse", "dense", "width")) == ("features", "sparse", "width")
    assert key_path(("tables", "sparse", "dense")) == ("tables", "sparse", "dense")
    assert key_path(("model", "expert_layers", 0)) == ("model", "expert_layers", "0")
