"""Columns whose values are in the names of folders: found, typed, read, trained."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import Config, DataConfig, SparseFeature, TableConfig, TaskConfig, TrainingConfig
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.data.columns.checks import check_manifest
from trainer.data.dataset.follow import extend
from trainer.data.dataset.largest import largest
from trainer.data.dataset.partitions import NULL
from trainer.data.dataset.path_columns import add_path_columns, path_types, values_of
from trainer.data.dataset.scan import build_manifest
from trainer.data.inspection.inspect_data import inspect_data
from trainer.data.reading.reader import Reader

TABLE = pa.table({"x": [1, 2]})


def write(root: Path, folder: str, **columns) -> None:
    (root / folder).mkdir(parents=True)
    pq.write_table(pa.table({"x": [1, 2], "click": [0, 1]} | columns), root / folder / "a.parquet")


def added(folder: str, schema: pa.Schema | None = None, table: pa.Table = TABLE) -> pa.Table:
    return add_path_columns(table, folder, list(values_of(folder)), schema, "file")


def config(root: Path, **features: SparseFeature) -> Config:
    return Config(
        data=DataConfig(root=str(root), train="", global_batch_size=4, lanes=2, shuffle_window=0),
        features=features or {"hour": SparseFeature(table="t", transform="identity")},
        tables={"t": TableConfig(num_embeddings=100, embedding_dim=4)},
        tasks={"click": TaskConfig()},
        training=TrainingConfig(run_dir=str(root / "run")),
    )


def hours(root: Path) -> list[int]:
    """IDs of the feature `hour` of all rows, in order."""
    settings, manifest = config(root), build_manifest(str(root))
    transforms = FeatureTransforms(settings.features, settings.tables)
    check_manifest(manifest, transforms, settings)
    reader = Reader(manifest, settings.data, transforms, settings.tasks, 0, 0, 1, shuffle=False)
    values = [batch.sparse["hour"].values().tolist() for batch in reader.batches(0) if batch.sparse is not None]
    return sorted(value for part in values for value in part)


def test_names_are_unescaped() -> None:
    assert values_of("plain/dt=2024-01-01/at=10%3A30/who=%C3%A9/who%3D=a=b/=x") == {
        "dt": "2024-01-01",
        "at": "10:30",
        "who": "é",
        "who=": "a=b",
    }
    assert values_of(f"a=1/a=2/b={NULL}/c=") == {"a": "2", "b": None, "c": ""}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["3", "-08", NULL], pa.int64()),
        (["3", "x", "4"], pa.string()),
        (["2024-01-01"], pa.string()),
        (["1.5"], pa.string()),
        (["9" * 19], pa.string()),
        ([NULL], pa.null()),
    ],
)
def test_types(values: list[str], kind: pa.DataType) -> None:
    assert path_types([f"a={value}" for value in values]) == {"a": kind}


def test_values_take_the_type_of_the_schema() -> None:
    schema = pa.schema({"n": pa.int16(), "d": pa.date32(), "s": pa.dictionary(pa.int32(), pa.string())})
    table = added(f"n=08/d=2024-01-31/s=7/o=7/t=a/z={NULL}", schema)
    assert table.schema == pa.schema(
        {
            **{"x": pa.int64(), "n": pa.int16(), "d": pa.date32(), "s": pa.string()},
            **{"o": pa.int64(), "t": pa.string(), "z": pa.string()},
        }
    )
    expected = {"x": 2, "n": 8, "d": date(2024, 1, 31), "s": "7", "o": 7, "t": "a", "z": None}
    assert table.to_pylist()[1] == expected
    with pytest.raises(UserError, match=r"file: the folder says n=x, which is not of the column's type int16"):
        added("n=x", schema)


@pytest.mark.parametrize(
    ("values", "same", "other"),
    [
        (pa.array([3, None, 3]), "03", "4"),
        (pa.array(["a", "a"]), "a", "b"),
        (pa.array(["a", "a"], pa.large_string()), "a", "b"),
        (pa.array(["a", "a"]).dictionary_encode(), "a", "b"),
        (pa.array([1.5, None], pa.float32()), "1.50", "2"),
        (pa.array([True, True]), "true", "false"),
        (pa.array([1, 1], pa.date32()), "1970-01-02", "1970-01-01"),
    ],
)
def test_a_file_and_its_folder_say_the_same(values: pa.Array, same: str, other: str) -> None:
    table = pa.table({"v": values})
    assert added(f"v={same}", table=table) == table
    with pytest.raises(UserError, match=f"file, row 0: column 'v' is .*, but its folder says v={other}"):
        added(f"v={other}", table=table)


def test_what_a_folder_may_say_in_another_way() -> None:
    table = pa.table({"at": pa.array([0, 10**9], pa.timestamp("ms")), "n": [1, 2], "l": [[1], [2]]})
    assert added("at=1970-01-01/n=few/l=1", table=table) == table


def test_a_part_whose_rows_have_no_value(tmp_path: Path) -> None:
    write(tmp_path, f"hour={NULL}")
    assert hours(tmp_path) == []


def test_features_from_the_path(tmp_path: Path) -> None:
    for hour in (8, 10):
        write(tmp_path, f"dt=2024-01-01/hour={hour}")
    write(tmp_path, "dt=2024-01-02/hour=9", hour=[9, 9])  # here the file has it too
    write(tmp_path, f"dt=2024-01-02/hour={NULL}")
    assert hours(tmp_path) == [8, 8, 9, 9, 10, 10]


def test_all_columns_from_the_path(tmp_path: Path) -> None:
    folder = tmp_path / "hour=5" / "click=1"
    folder.mkdir(parents=True)
    pq.write_table(TABLE, folder / "a.parquet")
    assert hours(tmp_path) == [5, 5]


def test_a_file_outside_of_the_folders_is_named(tmp_path: Path) -> None:
    write(tmp_path, "hour=8")
    write(tmp_path, "other")
    with pytest.raises(UserError, match=r"other/a\.parquet: there is no column 'hour'"):
        hours(tmp_path)


def test_a_later_partition_of_another_type_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "hour=8")
    first = build_manifest(str(tmp_path))
    write(tmp_path, "hour=x")
    (tmp_path / "hour=x" / "_SUCCESS").touch()
    settings, grown = config(tmp_path), extend(first, 10).manifest
    assert grown.starts_with(first)
    with pytest.raises(UserError, match=r"hour=x/a\.parquet: column 'hour' has type string"):
        check_manifest(grown, FeatureTransforms(settings.features, settings.tables), settings)


def test_the_newest_value_of_a_path(tmp_path: Path) -> None:
    for day in (20, 3, NULL):
        write(tmp_path, f"day={day}")
    assert max(largest(build_manifest(str(tmp_path)), "day", ""))[0] == 20


def test_columns_of_the_path_are_inspected(tmp_path: Path) -> None:
    write(tmp_path, "hour=8")
    write(tmp_path, "hour=10")
    _, values = inspect_data(str(tmp_path))
    column = values["parts"][tmp_path.name]["columns"]["hour"]
    assert (column["type"], column["min"], column["mean"], column["max"], column["rows"]) == ("int64", 8, 9.0, 10, 4)
