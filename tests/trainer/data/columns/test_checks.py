"""What is said about a data set before a run starts on it."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import Config, DataConfig, DenseFeature, SparseFeature, TableConfig, TaskConfig, TrainingConfig
from embeddings.features.arrow import is_list
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.data.columns.checks import check_manifest, check_parts
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import build_manifest

GOOD = {"user": pa.array([1, 2]), "age": pa.array([1.0, 2.0]), "click": pa.array([0, 1]), "w": pa.array([1.0, 1.0])}


def check(root: Path, *tables: dict[str, pa.Array], **data) -> None:
    for number, columns in enumerate(tables):
        pq.write_table(pa.table(columns), root / f"{number}.parquet")
    config = config_of(root, **data)
    check_manifest(build_manifest(str(root)), FeatureTransforms(config.features, config.tables), config)


def config_of(root: Path, **data) -> Config:
    return Config(
        data=DataConfig(root=str(root), weight_column="w", **data),
        features={"user": SparseFeature(table="t"), "age": DenseFeature()},
        tables={"t": TableConfig(num_embeddings=10, embedding_dim=4)},
        tasks={"click": TaskConfig()},
        training=TrainingConfig(run_dir="unused"),
    )


def test_good_files(tmp_path: Path) -> None:
    more = dict(reversed(GOOD.items())) | {"extra": pa.array(["a", "b"])}
    check(tmp_path, GOOD, more)


@pytest.mark.parametrize("column", list(GOOD))
def test_a_missing_column(tmp_path: Path, column: str) -> None:
    lacking = {name: values for name, values in GOOD.items() if name != column}
    with pytest.raises(UserError, match=rf"1\.parquet: there is no column '{column}'\nThe first file has: user, "):
        check(tmp_path, GOOD, lacking)


def test_many_missing_columns_are_counted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="and 3 more") as caught:
        check(tmp_path, {"x": pa.array([1])}, {"x": pa.array([1])})
    assert len(str(caught.value).splitlines()) == 7


def test_a_column_there_twice(tmp_path: Path) -> None:
    double = pa.Table.from_arrays([*GOOD.values(), GOOD["age"]], [*GOOD, "age"])
    pq.write_table(double, tmp_path / "0.parquet")
    with pytest.raises(UserError, match="there is 2 times the column 'age'"):
        check(tmp_path)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("user", pa.array([1.5, 2.5])),
        ("age", pa.array(["a", "b"])),
        ("click", pa.array([[1], [0]])),
        ("w", pa.array(["a", "b"])),
    ],
)
def test_a_type_that_cannot_be_used(tmp_path: Path, column: str, values: pa.Array) -> None:
    with pytest.raises(UserError, match=rf"0\.parquet: column '{column}' has type"):
        check(tmp_path, GOOD | {column: values})


@pytest.mark.parametrize(
    ("column", "values", "can_widen"),
    [
        ("user", pa.array([1, 2], pa.int32()), True),
        ("age", pa.array([1.0, 2.0], pa.float32()), True),
        ("user", pa.array(["1", "2"]), False),
        ("user", pa.array([1, 2], pa.uint64()), False),
        ("user", pa.array([[1], [2]]), False),
        ("age", pa.array([1, 2]), False),
    ],
)
def test_unequal_types(tmp_path: Path, column: str, values: pa.Array, can_widen: bool) -> None:
    other = GOOD | {column: values}
    with pytest.raises(UserError, match=rf"1\.parquet: column '{column}' has type .*0\.parquet"):
        check(tmp_path, GOOD, other)
    if can_widen:
        check(tmp_path, GOOD, other, widen_types=True)
    else:
        with pytest.raises(UserError, match="has type"):
            check(tmp_path, GOOD, other, widen_types=True)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2]).dictionary_encode(),
        pa.nulls(2),
        pa.array([1, None]),
    ],
)
def test_what_does_not_make_types_unequal(tmp_path: Path, values: pa.Array) -> None:
    check(tmp_path, GOOD, GOOD | {"user": values})


FLAGS = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 1], pa.int8()))
EXTENSIONS = {
    "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((2, 2), np.float32)),
    "flag": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 1], pa.int8())),
    "flags": pa.ListArray.from_arrays(
        [0, 1, 2], pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 1], pa.int8()))
    ),
}


def test_extension_types_are_what_they_are_stored_as(tmp_path: Path) -> None:
    pq.write_table(pa.table(GOOD | EXTENSIONS), tmp_path / "0.parquet")
    sparse = {name: SparseFeature(table="t", column=name) for name in ("flag", "flags")}
    config = config_of(tmp_path)
    features = FeatureTransforms({**sparse, "tensor": DenseFeature(width=2)}, config.tables)
    check_manifest(build_manifest(str(tmp_path)), features, config)


def parts(root: Path, validation: dict[str, pa.Array], train: dict[str, pa.Array] = GOOD) -> dict[str, Manifest]:
    for part, columns in (("train", train), ("validation", validation)):
        (root / part).mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), root / part / "a.parquet")
    config = config_of(root)
    return check_parts(config, FeatureTransforms(config.features, config.tables), {}, lambda line: None)


def test_both_parts_are_checked_before_training(tmp_path: Path) -> None:
    assert list(parts(tmp_path, GOOD)) == ["train", "validation"]
    with pytest.raises(UserError, match=r"validation/a\.parquet: there is no column 'age'"):
        parts(tmp_path, {name: values for name, values in GOOD.items() if name != "age"})
    with pytest.raises(UserError, match=r"validation/a\.parquet, row group 0: column 'w' is null in 1 of 2 rows"):
        parts(tmp_path, GOOD | {"w": pa.array([1.0, None])})
    with pytest.raises(UserError, match=r"train: column 'click' is null in every row"):
        parts(tmp_path, GOOD, GOOD | {"click": pa.array([None, None], pa.int64())})
    parts(tmp_path, GOOD | {"click": pa.array([None, None], pa.int64())})  # a part without labels can be there


@pytest.mark.parametrize(("train", "validation"), [("", "b"), (".", "b"), ("a", "a/b"), ("a/b", "./a"), ("a", "a/./b")])
def test_a_part_inside_the_other_is_refused(tmp_path: Path, train: str, validation: str) -> None:
    for folder in {train, validation}:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(GOOD), tmp_path / folder / "a.parquet")
    config = config_of(tmp_path, train=train, validation=validation)
    features = FeatureTransforms(config.features, config.tables)
    with pytest.raises(UserError, match="lies inside the other"):
        check_parts(config, features, {}, lambda line: None)
    if validation == "b":  # a part that is not there is in nobody's way
        (tmp_path / "b" / "a.parquet").unlink()
        (tmp_path / "b").rmdir()
        assert list(check_parts(config, features, {}, lambda line: None)) == [train]


def test_a_part_that_is_trained_and_measured_is_checked_for_both(tmp_path: Path) -> None:
    config = config_of(tmp_path, train="all", validation="all", group_column="age")
    features = FeatureTransforms(config.features, config.tables)
    (tmp_path / "all").mkdir()
    for age, fault in ((pa.array([1, 2]), None), (pa.array([1, None]), "column 'age' is null in 1 of 2 rows")):
        pq.write_table(pa.table(GOOD | {"age": age}), tmp_path / "all" / "a.parquet")
        if fault is None:
            assert list(check_parts(config, features, {}, lambda line: None)) == ["all"]
        else:
            with pytest.raises(UserError, match=fault):
                check_parts(config, features, {}, lambda line: None)


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.list_(pa.large_string())], ids=str)
def test_ids_of_another_kind_in_another_part_are_refused(tmp_path: Path, kind: pa.DataType) -> None:
    user = pa.array([["1"], ["2"]] if is_list(kind) else ["1", "2"]).cast(kind)
    message = r"validation/a\.parquet: column 'user' has type \S.*, but int64 in \S*train/a\.parquet: its IDs"
    with pytest.raises(UserError, match=message):
        parts(tmp_path, GOOD | {"user": user})


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint64(), pa.decimal32(5, 0), pa.bool_(), pa.list_(pa.int16())], ids=str
)
def test_ids_of_another_width_in_another_part_are_the_same_ids(tmp_path: Path, kind: pa.DataType) -> None:
    user = pa.array([[1], [0]] if is_list(kind) else [1, 0])
    user = pa.array([Decimal(1), Decimal(0)], kind) if pa.types.is_decimal(kind) else user.cast(kind)
    parts(tmp_path, GOOD | {"user": user})
    parts(tmp_path, GOOD | {"user": pa.nulls(2)})
