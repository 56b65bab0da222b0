"""What the schema accepts, and that its defaults are its own examples."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from configs.errors import UserError
from configs.load import load_config
from configs.schema import Config, DenseFeature, Section, SparseFeature, TableConfig, TrainingConfig

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"


def test_a_feature_with_a_table_is_sparse() -> None:
    config = Config.model_validate(
        {
            "data": {"root": "d"},
            "features": {"user": {"table": "t"}, "age": {}},
            "tasks": {"click": {}},
            "training": {"run_dir": "r"},
        }
    )
    assert config.sparse_features == {"user": SparseFeature(table="t")}
    assert config.dense_features == {"age": DenseFeature()}


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": True},
        {"epochs": 0},
        {"epochs": 1.5},
        {"clip_gradient_norm": False},
        {"seed": -1},
        {"warmup_steps": float("nan")},
        {"precision": "fp8"},
        {"unknown": 1},
        {"seed": 2**63},
        {"max_steps": 10**23},
        {"clip_gradient_norm": 1e300},
    ],
)
def test_wrong_values_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate({"run_dir": "r", **values})


@pytest.mark.parametrize(
    "override",
    [
        "tables.user.num_embeddings=99999999999999999999",
        "data.read_timeout_s=1e300",
        "features.history.max_length=1e10",
    ],
)
def test_numbers_that_no_machine_holds_are_refused_with_their_key(override: str) -> None:
    with pytest.raises(UserError, match=f"{override.partition('=')[0]} = .*: must be less than or equal to"):
        load_config(QUICKSTART, [override])


def test_truth_values_and_whole_numbers_are_read() -> None:
    training = TrainingConfig.model_validate({"run_dir": "r", "compile": True, "epochs": 1e3})
    assert training.compile is True
    assert training.epochs == 1000


def test_sections_are_immutable() -> None:
    table = TableConfig(num_embeddings=1, embedding_dim=4)
    with pytest.raises(ValidationError):
        table.num_embeddings = 2  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("section", Section.__subclasses__(), ids=lambda section: section.__name__)
def test_every_key_is_described(section: type[Section]) -> None:
    """A key whose value is a section is described by that section."""
    bare = {str(field.annotation) for field in section.model_fields.values() if not field.description}
    assert all("configs." in annotation for annotation in bare), bare
    assert section.__doc__
