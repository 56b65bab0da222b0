"""Columns of every shape against a plain row-by-row reading of what the features promise."""

import itertools
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from configs.schema import DenseFeature, SparseFeature, TableConfig
from embeddings.features.arrow import floats
from embeddings.features.feature_transforms import FeatureTransforms
from embeddings.features.places import row_of

TABLES = {"t": TableConfig(num_embeddings=100, embedding_dim=4)}
WHERE = "part-0.parquet, row group 3"


def transform(table, **features):
    return FeatureTransforms(features, TABLES)(table, WHERE)


def identity(**settings):
    return SparseFeature(table="t", transform="identity", **settings)


def bags(ragged):
    ends = np.cumsum(ragged.lengths)
    return [ragged.values[end - n : end].tolist() for end, n in zip(ends, ragged.lengths, strict=True)]


ID_LISTS = st.lists(st.none() | st.lists(st.none() | st.integers(0, 99), max_size=6), max_size=20)
LIST_TYPES = [pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_view(pa.uint16())]


@given(ID_LISTS, st.sampled_from(LIST_TYPES), st.integers(1, 4), st.data())
def test_lists_lose_nulls_and_keep_their_last(rows, kind, max_length, data):
    start = data.draw(st.integers(0, len(rows)))
    table = pa.table({"x": pa.array(rows, kind)}).slice(start)
    result = transform(table, x=identity(max_length=max_length)).sparse["x"]
    assert bags(result) == [[i for i in row or [] if i is not None][-max_length:] for row in rows[start:]]
    assert result.lengths.dtype == np.int32


@given(ID_LISTS, st.integers(1, 6))
def test_chunks_are_as_one(rows, cuts):
    table = pa.table({"x": pa.array(rows, pa.list_(pa.int64()))})
    edges = np.linspace(0, len(rows), cuts + 1).astype(int)
    pieces = [table.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    whole, chunked = (transform(t, x=SparseFeature(table="t")).sparse["x"] for t in (table, pa.concat_tables(pieces)))
    assert bags(whole) == bags(chunked)


@given(st.lists(st.none() | st.lists(st.tuples(st.none() | st.integers(0, 120), st.floats(0, 1)), max_size=5)))
def test_weights_follow_their_ids(rows):
    ids = [None if row is None else [i for i, _ in row] for row in rows]
    weights = [None if row is None else [w for _, w in row] for row in rows]
    table = pa.table({"x": pa.array(ids, pa.list_(pa.int64())), "w": pa.array(weights, pa.list_(pa.float64()))})
    columns = transform(table, x=identity(weights="w", out_of_range="drop", max_length=3))
    known = [[(i, w) for i, w in row or [] if i is not None][-3:] for row in rows]
    kept = [[(i, w) for i, w in row if i < 100] for row in known]
    assert bags(columns.sparse["x"]) == [[i for i, _ in row] for row in kept]
    assert columns.sparse["x"].weights.tolist() == [np.float32(w) for row in kept for _, w in row]
    assert columns.dropped.get("x", 0) == sum(len(row) for row in known) - sum(len(row) for row in kept)


@pytest.mark.parametrize("values", [[3, None, 5], [None, None, None], []])
def test_scalars_are_bags_of_one_or_none(values):
    table = pa.table({"x": pa.array(values, pa.int16())})
    assert bags(transform(table, x=identity()).sparse["x"]) == [[] if v is None else [v] for v in values]


def test_fixed_size_lists():
    table = pa.table({"x": pa.array([[1, 2], None, [None, 4], [5, 6]], pa.list_(pa.int32(), 2))})
    assert bags(transform(table, x=identity()).sparse["x"]) == [[1, 2], [], [4], [5, 6]]
    assert bags(transform(table.slice(2), x=identity()).sparse["x"]) == [[4], [5, 6]]


def test_null_list_that_covers_elements():
    array = pa.ListArray.from_arrays(
        pa.array([0, 2, 4, 5]), pa.array([1, 2, 3, 4, 5]), mask=pa.array([False, True, False])
    )
    assert bags(transform(pa.table({"x": array}), x=identity()).sparse["x"]) == [[1, 2], [], [5]]


def test_dictionary_encoded_strings_with_nulls():
    plain = pa.array([["a", None], None, ["b", "a"]], pa.list_(pa.string()))
    coded = pa.ListArray.from_arrays(plain.offsets, plain.values.dictionary_encode(), mask=plain.is_null())
    results = [transform(pa.table({"x": a}), x=SparseFeature(table="t")).sparse["x"] for a in (plain, coded)]
    assert bags(results[0]) == bags(results[1])
    assert results[1].lengths.tolist() == [1, 0, 2]


@pytest.mark.parametrize("ids", [pa.nulls(2), pa.array([[], [None]])])
def test_column_that_never_had_a_value(tmp_path, ids):
    (tmp_path / "words.txt").write_text("a\nb\n")
    words = SparseFeature(table="t", column="x", transform="vocabulary", vocabulary=str(tmp_path / "words.txt"))
    table = pa.table({"x": ids, "d": pa.nulls(2)})
    columns = transform(table, x=identity(), w=words, d=DenseFeature(width=2, default=3))
    assert bags(columns.sparse["x"]) == bags(columns.sparse["w"]) == [[], []]
    assert columns.dense.tolist() == [[3, 3], [3, 3]]


def test_lists_of_lists_are_refused():
    with pytest.raises(UserError, match=r"column 'x' has type list<.*>, which is not a list of IDs"):
        transform(pa.table({"x": [[[1]]]}), x=identity())


def test_missing_column_is_named():
    with pytest.raises(UserError, match=r"part-0.parquet, row group 3: there is no column 'y'\nThere are: x"):
        transform(pa.table({"x": [1]}), x=identity(column="y"))


def test_unequal_weights_are_refused():
    table = pa.table({"x": [[1], [1, 2]], "w": [[1.0], [1.0]]})
    with pytest.raises(UserError, match="row 1: column 'x' has 2 IDs, column 'w' 1 weights"):
        transform(table, x=identity(weights="w"))


@pytest.mark.parametrize("weight", [None, np.nan, np.inf])
def test_weights_are_finite(weight):
    table = pa.table({"x": [[1, 2]], "w": pa.array([[1.0, weight]], pa.list_(pa.float32()))})
    with pytest.raises(UserError, match="column 'w' has the weight"):
        transform(table, x=identity(weights="w"))


NUMBER_TYPES = [pa.int8(), pa.uint8(), pa.int32(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()]


@pytest.mark.parametrize("kind", [*NUMBER_TYPES, pa.decimal128(9, 2), pa.bool_()], ids=str)
@pytest.mark.parametrize("values", [[1, 0, 1], [1, None, 0]])
def test_every_kind_of_number(kind, values):
    table = pa.table({"x": pa.array([None, *values], pa.float64()).cast(kind)}).slice(1)
    dense = transform(table, x=DenseFeature(default=0.5)).dense
    assert dense.dtype == np.float32
    assert dense.tolist() == [[0.5 if v is None else v] for v in values]


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.date32(), pa.string(), pa.binary()], ids=str)
def test_what_is_no_number_is_refused(kind):
    table = pa.table({"x": pa.array([None], kind)})
    with pytest.raises(
        UserError, match=r"part-0.parquet, row group 3: column 'x' has type .*, which is not a number\n"
    ):
        transform(table, x=DenseFeature())


def test_dense_lists_stand_side_by_side():
    table = pa.table(
        {
            "a": pa.array([[1, 2], None, [None, 4]], pa.list_(pa.float32(), 2)),
            "b": pa.array([7, 8, 9]),
            "c": pa.array([[1.0], [2.0], [3.0]]),
        }
    )
    dense = transform(table, a=DenseFeature(width=2, default=-1), b=DenseFeature(), c=DenseFeature()).dense
    assert dense.tolist() == [[1, 2, 7, 1], [-1, -1, 8, 2], [-1, 4, 9, 3]]


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_a_tensor_is_the_list_that_it_is_stored_as(shape):
    numbers = np.arange(24, dtype=np.float32)
    chunks = [
        pa.FixedShapeTensorArray.from_numpy_ndarray(part.reshape(-1, *shape)) for part in (numbers[:8], numbers[8:])
    ]
    for column in (chunks[0], pa.chunked_array(chunks)):
        dense = transform(pa.table({"x": column}), x=DenseFeature(width=4)).dense
        assert dense.tolist() == numbers[: dense.size].reshape(-1, 4).tolist()


@given(st.lists(st.none() | st.decimals("-9999.99", "9999.99", places=2)), st.integers(0, 3))
def test_a_decimal_is_the_nearest_double(numbers, skipped):
    for kind in (pa.decimal32(6, 2), pa.decimal64(9, 2), pa.decimal128(9, 2), pa.decimal256(40, 2)):
        found = floats(pa.array(numbers, kind).slice(skipped), 0.5, WHERE)
        assert found.tolist() == [0.5 if number is None else float(number) for number in numbers[skipped:]]


def test_long_decimals_are_numbers_too():
    numbers = [Decimal("12345678901234567890.25"), Decimal("0.125")]
    for kind in (pa.decimal128(30, 5), pa.decimal256(60, 5)):
        assert floats(pa.array(numbers, kind), 0, WHERE) == pytest.approx([float(number) for number in numbers])
    assert floats(pa.array([Decimal(10) ** 60], pa.decimal256(70, 0)), 0, WHERE) == pytest.approx([1e60])


def test_dense_list_of_another_length():
    with pytest.raises(UserError, match=r"row group 3, row 1: column 'x' has 1 numbers, not 2"):
        transform(pa.table({"x": [[1.0, 2.0], [1.0]]}), x=DenseFeature(width=2))


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int8()], ids=str)
def test_log1p_keeps_the_sign(kind):
    dense = transform(pa.table({"x": pa.array([-3, 0, 3]).cast(kind)}), x=DenseFeature(transform="log1p")).dense
    np.testing.assert_allclose(dense[:, 0], [-np.log(4), 0, np.log(4)], rtol=1e-7)


def test_standardize_does_not_round_first():
    table = pa.table({"x": pa.array([1_700_000_001, None], pa.int64())})
    feature = DenseFeature(transform="standardize", mean=1.7e9, std=2, default=1.7e9)
    assert transform(table, x=feature).dense.tolist() == [[0.5], [0.0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", ["none", "log1p", "standardize"])
def test_not_finite_is_an_error_with_its_place(bad, how):
    table = pa.table({"a": [0.0, 0.0, 0.0], "x": [1.0, bad, 2.0]})
    with pytest.raises(UserError, match=r"part-0.parquet, row group 3, row 1: column 'x' is .*\nWrite null"):
        transform(table, a=DenseFeature(), x=DenseFeature(transform=how))


def test_beyond_float32_is_an_error_unless_its_transform_brings_it_back():
    table = pa.table({"x": [1e300]})
    with pytest.raises(UserError, match=r"column 'x' is 1e\+300, which is no finite 32-bit number"):
        transform(table, x=DenseFeature())
    assert transform(table, x=DenseFeature(transform="log1p")).dense[0, 0] == np.float32(np.log(1e300))


def test_not_finite_under_a_null_is_the_default():
    values = pa.array(np.array([np.nan, 1.0]), mask=np.array([True, False]))
    assert transform(pa.table({"x": values}), x=DenseFeature(default=2)).dense.tolist() == [[2], [1]]


def test_columns_are_listed_once():
    features = {
        "a": SparseFeature(table="t", column="ids", weights="w"),
        "b": SparseFeature(table="t", column="ids"),
        "d": DenseFeature(column="price", width=3),
    }
    transforms = FeatureTransforms(features, TABLES)
    assert transforms.columns == ("ids", "price", "w")
    assert (transforms.sparse_names, transforms.weighted_names) == (("a", "b"), ("a",))
    assert transforms.dense_width == 3


def test_no_copy_of_plain_ids():
    column = pa.array(np.arange(50, dtype=np.int64))
    result = transform(pa.table({"x": column}).slice(10), x=identity()).sparse["x"]
    assert np.shares_memory(result.values, column.to_numpy())


def test_empty_table():
    table = pa.table({"x": pa.array([], pa.list_(pa.string())), "d": pa.array([], pa.float32())})
    columns = transform(table, x=SparseFeature(table="t", max_length=2), d=DenseFeature())
    assert columns.sparse["x"].lengths.shape == (0,)
    assert columns.dense.shape == (0, 1)


LATER = 8192  # row of the file that a part of it begins with
FAULTS = {
    "outside": (identity(), {"x": [[1, None], [], [2, 100]]}, "'x' has ID 100, outside table 't'"),
    "cut": (identity(max_length=1), {"x": [[100, 1], [], [5, 100]]}, "'x' has ID 100"),
    "nan": (SparseFeature(table="t", transform="bucketize", boundaries=(1,)), {"x": [1.0, None, np.nan]}, "'x' is NaN"),
    "weight": (identity(weights="w"), {"x": [[1], [], [2]], "w": [[1.0], [], [np.inf]]}, "'w' has the weight inf"),
    "weights": (identity(weights="w"), {"x": [[1], [], [2]], "w": [[1.0], [], []]}, "'x' has 1 IDs, column 'w' 0"),
    "width": (DenseFeature(width=1), {"x": [[1.0], None, [1.0, 2.0]]}, "'x' has 2 numbers, not 1"),
    "dense": (DenseFeature(), {"x": [1.0, None, np.inf]}, "'x' is inf"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_in_the_row_of_the_file(fault):
    feature, columns, message = FAULTS[fault]
    transforms = FeatureTransforms({"x": feature}, TABLES)
    for first_row in (0, LATER):
        with pytest.raises(UserError, match=rf"^part-0.parquet, row group 3, row {first_row + 2}: column {message}"):
            transforms(pa.table({n: pa.array(v, from_pandas=False) for n, v in columns.items()}), WHERE, first_row)


@given(st.lists(st.integers(0, 4), min_size=1).filter(any), st.data())
def test_the_row_of_an_element(lengths, data):
    place = data.draw(st.integers(0, sum(lengths) - 1))
    owners = [row for row, length in enumerate(lengths) for _ in range(length)]
    assert row_of(place, np.array(lengths, np.int32)) == owners[place]
