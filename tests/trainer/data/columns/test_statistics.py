"""Labels and weights that cannot be trained are found in the footers, before a row is read."""

from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import DataConfig, DenseFeature, SparseFeature, TableConfig, TaskConfig
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.data.columns.statistics import StatisticsCheck
from trainer.data.dataset.follow import complete_partitions
from trainer.data.dataset.partitions import NULL
from trainer.data.dataset.scan import build_manifest

TASKS = {
    "click": TaskConfig(),
    "seconds": TaskConfig(loss="mse"),
    "like": TaskConfig(label="liked", weight_column="propensity"),
}
DATA = DataConfig(root="unused", weight_column="w", group_column="user")
FEATURES = {
    "user": SparseFeature(table="t", transform="identity"),
    "recent": SparseFeature(table="t", transform="identity", weights="recent_weights"),
    "session": SparseFeature(table="t", transform="identity", out_of_range="drop"),
    "price": DenseFeature(),
    "logged": DenseFeature(transform="log1p"),
}
TRANSFORMS = FeatureTransforms(FEATURES, {"t": TableConfig(num_embeddings=10, embedding_dim=4)})


def statistics(evaluates: bool = False) -> StatisticsCheck:
    return StatisticsCheck(TASKS, DATA, TRANSFORMS, evaluates=evaluates)


GOOD = {
    "list": pa.array([[1], [2, 3]]),
    "nested": pa.array([{"click": 7}, {"click": 8}]),
    "click": pa.array([0, 1]),
    "seconds": pa.array([-3.0, 1e6]),
    "liked": pa.array([0.5, None]),
    "propensity": pa.array([0.0, 20.0]),
    "w": pa.array([1, 3]),
    "user": pa.array([0, 9]),
    "recent": pa.array([[1, 9, None], None]),
    "recent_weights": pa.array([[1.0, 0.5, 2.0], None]),
    "session": pa.array([7, 10**12]),
    "price": pa.array([1.5, None]),
    "logged": pa.array([1e300, None]),
}


def look(root: Path, columns: dict[str, pa.Array], evaluates: bool = True, **options) -> None:
    (root / "day=1").mkdir(exist_ok=True)
    pq.write_table(pa.table(GOOD), root / "day=1" / "a.parquet")
    pq.write_table(pa.table(columns), root / "day=1" / "b.parquet", row_group_size=1, **options)
    build_manifest(str(root), look=statistics(evaluates))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"click": pa.array([True, False])},
        {"click": pa.nulls(2)},
        {"click": pa.array([None, None], pa.int64())},
        {"click": pa.array([float("nan"), 1.0])},
        {"liked": pa.array(["a", "b"])},  # its type is refused elsewhere
    ],
)
def test_what_can_be_trained(tmp_path: Path, changes: dict[str, pa.Array]) -> None:
    look(tmp_path, GOOD | changes)


@pytest.mark.parametrize(
    ("column", "values", "beyond", "remedy"),
    [
        ("click", pa.array([0, -1]), r"from -1 to -1, beyond \[0, 1\]", "null where it is not known"),
        ("click", pa.array([1, 5], pa.uint8()), r"from 5 to 5, beyond \[0, 1\]", r"tasks\.click\.loss"),
        ("liked", pa.array([0.0, 1.5], pa.float32()), r"from 1\.5 to 1\.5", r"tasks\.like\.loss"),
        ("propensity", pa.array([0.5, -0.5]), r"beyond \[0, 3.40282e\+38\]", "at least 0"),
        ("w", pa.array([0, -3]), r"from -3 to -3, beyond \[0, 3.40282e\+38\]", "at least 0"),
        ("seconds", pa.array([0.0, np.inf]), "from inf to inf", "null for a label"),
        ("user", pa.array([0, 10]), r"from 10 to 10, beyond \[0, 9\]", r"tables\.t\.num_embeddings, .*out_of_range"),
        ("user", pa.array([0, 2**64 - 1], pa.uint64()), "from 18446744073709551615", "num_embeddings"),
        ("user", pa.array([0, -1]), r"from -1 to -1, beyond \[0, 9\]", "num_embeddings"),
        ("user", pa.array([Decimal(0), Decimal(11)], pa.decimal128(9, 0)), "from 11 to 11", "num_embeddings"),
        ("recent", pa.array([[1, 2], [None, 10]]), r"from 10 to 10, beyond \[0, 9\]", r"tables\.t\.num_embeddings"),
        ("recent_weights", pa.array([[1.0], [np.inf]]), "from inf to inf", "finite number for every ID"),
        ("price", pa.array([0.0, 1e300]), r"from 1e\+300 to 1e\+300", r"features\.price\.default"),
        ("logged", pa.array([0.0, -np.inf]), "from -inf to -inf", r"features\.logged\.default"),
    ],
)
def test_what_cannot(tmp_path: Path, column: str, values: pa.Array, beyond: str, remedy: str) -> None:
    where = rf"day=1/b\.parquet, row group 1: column '{column}' goes "
    with pytest.raises(UserError, match=f"{where}{beyond}.*\n.*{remedy}|{where}.*{beyond}\n.*{remedy}"):
        look(tmp_path, GOOD | {column: values})
    look(tmp_path, GOOD | {column: values}, write_statistics=False)  # then only its values can tell


@pytest.mark.parametrize(
    ("column", "values", "remedy"),
    [
        ("user", pa.array([1, None]), "a group for every row"),
        ("user", pa.nulls(2), "a group for every row"),
        ("w", pa.array([1, None]), "at least 0 for every row"),
        ("propensity", pa.array([None, None], pa.float64()), "at least 0 for every row"),
    ],
)
def test_a_null_where_there_must_be_a_value(tmp_path: Path, column: str, values: pa.Array, remedy: str) -> None:
    with pytest.raises(
        UserError, match=rf"b\.parquet, row group \d: column '{column}' is null in 1 of 1 rows\n.*{remedy}"
    ):
        look(tmp_path, GOOD | {column: values})


def test_a_training_part_has_no_groups_and_its_dense_columns_wait_until_they_are_read(tmp_path: Path) -> None:
    look(tmp_path, GOOD | {"user": pa.array([1, None]), "price": pa.array([np.inf, 0])}, evaluates=False)


def test_values_in_the_names_of_folders(tmp_path: Path) -> None:
    columns = {name: values for name, values in GOOD.items() if name != "user"}
    for folder in ("user=7", "user=12"):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table(columns), tmp_path / folder / "a.parquet")
    of_part = statistics(evaluates=True)
    manifest = build_manifest(str(tmp_path), look=of_part)
    with pytest.raises(UserError, match=r"user=12: column 'user' goes from 12 to 12, beyond \[0, 9\]"):
        of_part.check_folders(manifest)
    (tmp_path / "user=12").rename(tmp_path / "user=__HIVE_DEFAULT_PARTITION__")
    with pytest.raises(UserError, match=r"column 'user' is null"):
        of_part.check_folders(build_manifest(str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"liked": pa.nulls(2)}, "column 'liked' is null in every row, so tasks.like has no row"),
        ({"click": pa.array([None, None], pa.int8())}, "column 'click' is null in every row, so tasks.click has"),
        ({"w": pa.array([0.0, 0.0])}, "column 'w' is 0 in every row.*\n.*data.weight_column"),
        ({"propensity": pa.array([0, 0])}, "column 'propensity' is 0 in every row.*\n.*tasks.like.weight_column"),
    ],
)
def test_a_part_that_teaches_nothing(tmp_path: Path, changes: dict[str, pa.Array], message: str) -> None:
    def learn(**options) -> None:
        of_part = statistics()
        build_manifest(str(tmp_path), look=of_part)
        of_part.refuse_nothing_to_learn("train")

    pq.write_table(pa.table(GOOD | changes), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"train: {message}"):
        learn()
    pq.write_table(pa.table(GOOD), tmp_path / "b.parquet", row_group_size=1)
    learn()
    (tmp_path / "b.parquet").unlink()
    if next(iter(changes.values())).type != pa.null():
        pq.write_table(pa.table(GOOD | changes), tmp_path / "a.parquet", write_statistics=False)
        learn()


@pytest.mark.parametrize(
    ("folder", "works"), [("click=1", True), (f"click={NULL}", False), ("w=1", True), ("w=0", False)]
)
def test_a_column_of_folders_that_teaches_nothing(tmp_path: Path, folder: str, works: bool) -> None:
    column = folder.partition("=")[0]
    (tmp_path / folder).mkdir()
    columns = {name: values for name, values in GOOD.items() if name != column}
    pq.write_table(pa.table(columns), tmp_path / folder / "a.parquet")
    of_part = statistics()
    of_part.check_folders(build_manifest(str(tmp_path), look=of_part))
    with nullcontext() if works else pytest.raises(UserError, match=f"column '{column}' is .* in every row"):
        of_part.refuse_nothing_to_learn("train")


def test_new_partitions_are_looked_at(tmp_path: Path) -> None:
    look(tmp_path, GOOD)
    (tmp_path / "day=2").mkdir()
    pq.write_table(pa.table(GOOD | {"click": pa.array([2, 2])}), tmp_path / "day=2" / "a.parquet")
    assert complete_partitions(str(tmp_path), "", 10, statistics()).partitions == ("day=1",)
    (tmp_path / "day=2" / "_SUCCESS").touch()
    with pytest.raises(UserError, match=r"day=2/a\.parquet.*'click' goes from 2 to 2"):
        complete_partitions(str(tmp_path), "", 10, statistics())


def test_a_file_without_row_groups(tmp_path: Path) -> None:
    look(tmp_path, {name: array.slice(0, 0) for name, array in GOOD.items()})
