"""Whatever a file says of a row, a request says: the same predictions, or a refusal that names the same column."""

import copy
import decimal
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch._inductor import config as inductor

from configs.errors import UserError
from embeddings.features.arrow import id_kind
from tests.trainer.export.exported_runs import make_run
from tests.trainer.serving.server.running import scored, version_of
from trainer.export.write import export
from trainer.serving.bundle import Bundle
from trainer.serving.columns import element_type

IDS = {
    "user": pa.int32(),
    "name": pa.string(),
    "code": pa.binary(),
    "flag": pa.bool_(),
    "number": pa.decimal128(20, 0),
    "tag": pa.list_(pa.dictionary(pa.int8(), pa.string())),
    "liked": pa.list_(pa.int64()),
    "age": pa.float32(),
}
NUMBERS = {
    "price": pa.float32(),
    "views": pa.int16(),
    "cost": pa.decimal128(10, 2),
    "seen": pa.bool_(),
    "ratio": pa.float64(),
    "vector": pa.list_(pa.float32()),
}
FEATURES = {
    "user": {"table": "user"},
    "name": {"table": "user"},
    "code": {"table": "user"},
    "flag": {"table": "user"},
    "number": {"table": "user"},
    "tag": {"table": "tag", "transform": "vocabulary"},
    "liked": {"table": "item"},
    "age": {"table": "bucket", "transform": "bucketize", "boundaries": [0.1, 10, 20]},
    "price": {"transform": "log1p"},
    "views": {},
    "cost": {},
    "seen": {},
    "ratio": {"transform": "standardize", "mean": 1.0, "std": 2.0},
    "vector": {"width": 2},
}
ROW = {
    "user": 7,
    "name": "a",
    "code": b"b",
    "flag": True,
    "number": decimal.Decimal(5),
    "tag": ["a", "z"],
    "liked": [1, 2],
    "age": 0.1,
    "price": 2.5,
    "views": 3,
    "cost": decimal.Decimal("1.25"),
    "seen": False,
    "ratio": 0.5,
    "vector": [0.5, 1.5],
}
SCHEMA = pa.schema(list((IDS | NUMBERS).items()))
LARGE = st.sampled_from([0, 7, -7, 30_000_001, 2**31, 2**53 - 1, 2**53 + 1, 2**60 + 1, -(2**63), 2**63 - 1])
FRACTIONS = st.sampled_from([0.0, 0.1, 7.0, 7.5, -7.9, 3.99, 10.0, 30_000_000.0, 2.0**60, 1e39, np.nan, np.inf])
SINGLE = st.one_of(
    st.tuples(st.just(pa.int64()), LARGE),
    st.tuples(st.sampled_from([pa.int8(), pa.int32(), pa.uint64()]), st.integers(0, 127)),
    st.tuples(st.just(pa.uint64()), st.sampled_from([2**63, 2**64 - 1])),
    st.tuples(st.just(pa.float64()), FRACTIONS),
    st.tuples(st.sampled_from([pa.float16(), pa.float32()]), st.sampled_from([7.0, 7.5, 0.1, np.nan])),
    st.tuples(st.sampled_from([pa.string(), pa.binary()]), st.sampled_from(["", "7", "7.5", "a", "é"])),
    st.tuples(st.just(pa.bool_()), st.booleans()),
    st.tuples(st.just(pa.decimal128(30, 0)), LARGE.map(decimal.Decimal)),
    st.tuples(st.just(pa.decimal128(10, 2)), st.sampled_from(["7", "7.5", "0.10"]).map(decimal.Decimal)),
    st.tuples(st.sampled_from([pa.date32(), pa.timestamp("us"), pa.time64("us")]), st.integers(0, 1000)),
    st.tuples(st.just(pa.struct({"a": pa.int64()})), st.just({"a": 1})),
)
LISTS = st.builds(
    lambda single, shape: (pa.list_(single[0]), [single[1] if given_ else None for given_ in shape]),
    SINGLE,
    st.lists(st.booleans(), max_size=3),
)
NESTED = st.builds(lambda one: (pa.list_(one[0]), [one[1]]), LISTS)
NULLS = st.one_of(SINGLE, LISTS).map(lambda one: (one[0], None))
VALUES = st.one_of(SINGLE, LISTS, NESTED, NULLS)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    data = pa.Table.from_pylist([ROW] * 20, SCHEMA)
    data = data.append_column("click", pa.array([0, 1] * 10))
    with inductor.patch({"cpp.cxx": ("/no/such/compiler",)}):
        return Bundle(export(make_run(tmp_path_factory.mktemp("bundle"), FEATURES, data=data).training.run_dir))


def of_file(bundle, kinds, row):
    """What scoring a file of this row gives."""
    columns = {name: pa.array([value], kinds[name]) for name, value in row.items()}
    pq.write_table(pa.table(columns), file := io.BytesIO())
    return bundle.predict(pq.ParquetFile(file).read(), "file")


def of_request(bundle, kinds, row):
    """What a request with this row gives, its values as JSON writes them."""
    body = json.dumps({name: plain(pa.scalar(value, kinds[name]).as_py()) for name, value in row.items()})
    (result,) = scored(version_of(bundle), [[json.loads(body)]])
    if isinstance(result, Exception):
        raise result
    return result


def plain(value):
    """A value as a client would write it in JSON."""
    if isinstance(value, list):
        return [plain(element) for element in value]
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, dict | bool | int | float | str | None) else str(value)


def outcome(call, bundle, kinds, row, changed):
    """Predictions, or "refused" by a message that names the changed column."""
    try:
        return call(bundle, kinds, row)
    except UserError as error:
        return "refused" if repr(changed) in str(error) else str(error)


@pytest.fixture(scope="module")
def quick(bundle):
    """The bundle with a program that takes no time, and gives other numbers for other inputs of one row."""

    def run(weights, inputs):
        total = sum((place + 1) * torch.sin(x.double()).sum() for place, x in enumerate(inputs))
        return torch.stack([total, sum(x.numel() for x in inputs) * torch.ones_like(total)]).float()[None]

    quick = copy.copy(bundle)
    quick._program = run
    return quick


@settings(max_examples=600, deadline=None)
@given(column=st.sampled_from(list(ROW)), change=VALUES)
def test_a_file_and_a_request_agree(quick, column, change):
    is_text = id_kind(SCHEMA.field(column).type) == "text"
    assume(not (is_text and pa.types.is_temporal(element_type(change[0]))))  # JSON writes times as text
    kinds = {field.name: field.type for field in SCHEMA} | {column: change[0]}
    row = ROW | {column: change[1]}
    file, request = (outcome(call, quick, kinds, row, column) for call in (of_file, of_request))
    if isinstance(file, str) or isinstance(request, str):
        assert [file, request] == ["refused", "refused"]
    else:
        np.testing.assert_allclose(file, request, rtol=1e-6, atol=1e-6)


def test_the_plain_row_is_scored(bundle):
    kinds = {field.name: field.type for field in SCHEMA}
    assert of_file(bundle, kinds, ROW).shape == (1, 2)


@pytest.mark.parametrize(
    ("column", "one", "other"),
    [("price", 30_000_000, 30_000_000.0), ("user", 7, 7.0), ("ratio", 2**53 + 2, 2.0**53 + 2), ("cost", 5, 5.0)],
)
def test_a_whole_number_may_have_a_point(bundle, column, one, other):
    first, second = scored(version_of(bundle), [[plain_row() | {column: value}] for value in (one, other)])
    np.testing.assert_array_equal(first, second)


def test_fractions_count_where_training_had_integers(bundle):
    first, second = scored(version_of(bundle), [[plain_row() | {"views": value}] for value in (3, 3.99)])
    assert not np.allclose(first, second, atol=1e-7)


@pytest.mark.parametrize("value", [7.5, -7.9, float("nan")])
def test_fractions_are_no_ids(bundle, value):
    with pytest.raises(UserError, match="row 0: column 'user' holds"):
        scored(version_of(bundle), [[plain_row() | {"user": value}]])


def plain_row():
    return {name: plain(value) for name, value in ROW.items()}
