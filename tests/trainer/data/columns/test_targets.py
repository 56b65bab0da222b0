"""Labels and weights: missing ones mask, wrong ones are refused with their place."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from configs.errors import UserError
from configs.schema import TaskConfig
from trainer.data.columns.targets import Targets


def read(column: pa.Array, **task) -> tuple[list, list]:
    labels, weights = Targets({"y": TaskConfig(**task)}, None)(pa.table({"y": column}), "f.parquet, row group 2")
    assert labels.dtype == weights.dtype == np.float32
    return labels[:, 0].tolist(), weights[:, 0].tolist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([True, None, False]),
        pa.array([1, None, 0], pa.int8()),
        pa.array([1, None, 0], pa.uint64()),
        pa.array([1.0, None, 0.0], pa.float64()),
        pa.array([1.0, float("nan"), 0.0], pa.float32()),
        pa.array(np.array([1, np.nan, 0], np.float16)),
        pa.array([Decimal("1.0"), None, Decimal("0.0")]),
        pa.array([1, None, 0]).dictionary_encode(),
    ],
)
def test_types_and_missing_labels(column: pa.Array) -> None:
    assert read(column) == ([1, 0, 0], [1, 0, 1])


def test_a_column_without_values_masks_all() -> None:
    assert read(pa.nulls(2)) == ([0, 0], [0, 0])


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_infinity_is_refused(loss: str) -> None:
    with pytest.raises(UserError, match=r"f\.parquet, row group 2, row 1: column 'y' is -?inf, which is not finite"):
        read(pa.array([0.0, float("-inf")]), loss=loss)


def test_a_number_beyond_float32_is_refused() -> None:
    with pytest.raises(UserError, match="not finite"):
        read(pa.array([1e300]), loss="mse")


@pytest.mark.parametrize("loss", ["bce", "focal"])
def test_cross_entropy_wants_the_unit_interval(loss: str) -> None:
    assert read(pa.array([0.25, 1.0]), loss=loss)[0] == [0.25, 1]
    with pytest.raises(UserError, match=r"row 2: column 'y' is 5, outside \[0, 1\]\n.*tasks\.y\.loss"):
        read(pa.array([0, 1, 5]), loss=loss)
    assert read(pa.array([-3, 5]), loss="mse")[0] == [-3, 5]


@pytest.mark.parametrize("column", [pa.array(["1"]), pa.array([[1.0]]), pa.array([b"1"])])
def test_other_types_are_refused(column: pa.Array) -> None:
    with pytest.raises(UserError, match=r"f\.parquet, row group 2: column 'y' has type"):
        read(column)


def test_weights_multiply() -> None:
    tasks = {"a": TaskConfig(positive_weight=4, weight_column="w"), "b": TaskConfig(label="a")}
    table = pa.table({"a": [1.0, 0.0, None], "w": [2.0, 3.0, 5.0], "all": [7, 11, 13]})
    labels, weights = Targets(tasks, "all")(table, "")
    assert labels.tolist() == [[1, 1], [0, 0], [0, 0]]
    assert weights.tolist() == [[4 * 2 * 7, 7], [3 * 11, 11], [0, 0]]
    assert Targets(tasks, "all").columns == ("a", "all", "w")


@pytest.mark.parametrize("weight", [None, float("nan"), float("inf"), -1.0])
def test_wrong_weights_are_refused(weight: float | None) -> None:
    targets = Targets({"y": TaskConfig()}, "w")
    with pytest.raises(UserError, match=r"row 1: column 'w' is .*, which is no weight"):
        targets(pa.table({"y": [1, 0], "w": pa.array([1.0, weight])}), "f")
