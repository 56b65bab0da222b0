"""Values of other kinds than in training are refused; numbers take the types of training."""

import pyarrow as pa
import pytest

from configs.errors import UserError
from configs.schema import DenseFeature, SparseFeature
from embeddings.features.arrow import id_kind
from trainer.serving.columns import AsTrained, widest

TRAINED = pa.schema(
    [
        ("user", pa.int32()),
        ("tags", pa.large_list(pa.dictionary(pa.int32(), pa.string()))),
        ("age", pa.float32()),
        ("price", pa.float32()),
        ("views", pa.int16()),
        ("vector", pa.list_(pa.float32(), 2)),
        ("never", pa.list_(pa.null())),
    ]
)
IDS = dict.fromkeys(("user", "tags", "age", "never"), SparseFeature(table="t"))
NUMBERS = dict.fromkeys(("price", "views", "vector"), DenseFeature())


def as_trained(column, values, kind):
    """The column after the conversion, with its type."""
    table = pa.table({"first": pa.nulls(len(values)), column: pa.array(values, kind)})
    converted = AsTrained(IDS | NUMBERS, TRAINED)(table, "rows", first_row=100)
    return converted[column].type, converted[column].to_pylist()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.uint8(), "integers"),
        (pa.bool_(), "integers"),
        (pa.decimal128(20, 0), "integers"),
        (pa.list_(pa.large_string()), "text"),
        (pa.dictionary(pa.int8(), pa.string()), "text"),
        (pa.binary(), "text"),
        (pa.null(), "nothing"),
        (pa.float64(), "double"),
    ],
    ids=str,
)
def test_kinds_of_ids(kind, expected):
    assert id_kind(kind) == expected


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.bool_(), pa.decimal128(30, 0)], ids=str)
def test_the_width_of_ids_is_free(kind):
    values = pa.array([1, None, 0], pa.int64()).cast(kind).to_pylist()
    assert as_trained("user", values, kind) == (kind, values)


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.float16(), pa.decimal128(10, 2)], ids=str)
def test_whole_numbers_are_ids(kind):
    values = pa.array([7, None, -3]).cast(pa.float64()).cast(kind).to_pylist()
    assert as_trained("user", values, kind) == (pa.int64(), [7, None, -3])
    lists = [values[:2], None, [], values[2:]]
    found, converted = as_trained("user", lists, pa.list_(kind))
    assert (found.value_type, converted) == (pa.int64(), [[7, None], None, [], [-3]])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.float64(), 7.5),
        (pa.float64(), float("nan")),
        (pa.float64(), float("inf")),
        (pa.float64(), 2.0**53 + 2),
        (pa.float32(), 2.0**24 + 2),
    ],
    ids=str,
)
def test_other_numbers_are_no_ids(kind, value):
    with pytest.raises(UserError, match=r"rows, row 101: column 'user' holds .*, in training it had integers"):
        as_trained("user", [1, value], kind)
    with pytest.raises(UserError, match="rows, row 103: column 'user' holds"):
        as_trained("user", [[], None, [1, 2], [3, value]], pa.list_(kind))


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.string()), pa.date32()], ids=str)
def test_other_kinds_are_refused(kind):
    value = {"string": "5", "date32[day]": 5}.get(str(kind), ["5"])
    with pytest.raises(
        UserError, match=r"rows: column 'user' has .*, in training it had integers: .*\nCast it to int32"
    ):
        as_trained("user", [value], kind)
    assert as_trained("user", [None], kind)[1] == [None]  # nothing there, whatever the type says


def test_numbers_for_text_are_refused():
    with pytest.raises(UserError, match="column 'tags' has integers, in training it had text"):
        as_trained("tags", [[5]], pa.list_(pa.int64()))
    assert as_trained("tags", [["a"], None], pa.list_(pa.binary()))[1] == [[b"a"], None]


@pytest.mark.parametrize("column", ["age", "price"])
@pytest.mark.parametrize(
    ("kind", "value"),
    [(pa.int64(), 30_000_001), (pa.float64(), 30_000_001.0), (pa.decimal128(30, 2), 30_000_001), (pa.uint64(), 3)],
    ids=str,
)
def test_numbers_take_the_floats_of_training(column, kind, value):
    made = pa.array([value, None]).cast(kind).to_pylist()
    rounded = pa.array([value, None], pa.float64()).cast(pa.float32()).to_pylist()
    assert as_trained(column, made, kind) == (pa.float32(), rounded)


def test_lists_of_floats():
    found, values = as_trained("vector", [[1, 2], None, []], pa.list_(pa.int64()))
    assert (found.value_type, values) == (pa.float32(), [[1.0, 2.0], None, []])


def test_numbers_beside_ids_may_be_fractions():
    assert as_trained("views", [3.99, None], pa.float64()) == (pa.float64(), [3.99, None])


def test_nan_is_in_no_bucket():
    with pytest.raises(UserError, match="row 101: column 'age' holds nan"):
        as_trained("age", [1.0, float("nan")], pa.float64())


@pytest.mark.parametrize("values", [["a"], [5], [[5]]], ids=str)
def test_what_training_never_saw_stays(values):
    assert as_trained("never", values, None)[1] == values
    assert AsTrained(IDS, None)(pa.table({"user": values}), "rows")["user"].to_pylist() == values


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([pa.int32(), pa.int64(), pa.int16()], pa.int64()),
        ([pa.list_(pa.null()), pa.list_(pa.float32()), pa.list_(pa.float64())], pa.list_(pa.float64())),
        ([pa.null(), pa.string(), pa.large_string()], pa.string()),
        ([pa.null()], pa.null()),
    ],
    ids=str,
)
def test_the_widest_type_of_several_files(types, expected):
    assert widest(types) == expected
