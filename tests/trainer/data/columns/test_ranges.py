"""Labels and weights that cannot be trained are found in the footers, before a row is read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import TaskConfig
from trainer.data.columns.ranges import Ranges
from trainer.data.dataset.follow import complete_partitions
from trainer.data.dataset.scan import build_manifest

TASKS = {
    "click": TaskConfig(),
    "seconds": TaskConfig(loss="mse"),
    "like": TaskConfig(label="liked", weight_column="propensity"),
}
RANGES = Ranges(TASKS, "w")
GOOD = {
    "list": pa.array([[1], [2, 3]]),
    "nested": pa.array([{"click": 7}, {"click": 8}]),
    "click": pa.array([0, 1]),
    "seconds": pa.array([-3.0, 1e6]),
    "liked": pa.array([0.5, None]),
    "propensity": pa.array([0.0, 20.0]),
    "w": pa.array([1, 3]),
}


def look(root: Path, columns: dict[str, pa.Array], **options) -> None:
    (root / "day=1").mkdir(exist_ok=True)
    pq.write_table(pa.table(GOOD), root / "day=1" / "a.parquet")
    pq.write_table(pa.table(columns), root / "day=1" / "b.parquet", row_group_size=1, **options)
    build_manifest(str(root), look=RANGES)


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
        ("propensity", pa.array([0.5, -0.5]), r"beyond \[0, inf\]", "at least 0"),
        ("w", pa.array([0, -3]), r"from -3 to -3, beyond \[0, inf\]", "at least 0"),
    ],
)
def test_what_cannot(tmp_path: Path, column: str, values: pa.Array, beyond: str, remedy: str) -> None:
    where = rf"day=1/b\.parquet, row group 1: column '{column}' goes "
    with pytest.raises(UserError, match=f"{where}{beyond}.*\n.*{remedy}|{where}.*{beyond}\n.*{remedy}"):
        look(tmp_path, GOOD | {column: values})
    look(tmp_path, GOOD | {column: values}, write_statistics=False)  # then only its values can tell


def test_new_partitions_are_looked_at(tmp_path: Path) -> None:
    look(tmp_path, GOOD)
    (tmp_path / "day=2").mkdir()
    pq.write_table(pa.table(GOOD | {"click": pa.array([2, 2])}), tmp_path / "day=2" / "a.parquet")
    assert complete_partitions(str(tmp_path), "", 10, RANGES).partitions == ("day=1",)
    (tmp_path / "day=2" / "_SUCCESS").touch()
    with pytest.raises(UserError, match=r"day=2/a\.parquet.*'click' goes from 2 to 2"):
        complete_partitions(str(tmp_path), "", 10, RANGES)


def test_a_file_without_row_groups(tmp_path: Path) -> None:
    look(tmp_path, {name: array.slice(0, 0) for name, array in GOOD.items()})
