"""IDs of another kind than in training are refused; JSON rows take the types of training."""

import pyarrow as pa
import pytest

from configs.errors import UserError
from trainer.serving.columns import check_ids, decode_schema, encode_schema, id_kind, table_of

TRAINED = pa.schema(
    [
        ("user", pa.int64()),
        ("tags", pa.large_list(pa.dictionary(pa.int32(), pa.string()))),
        ("price", pa.float32()),
        ("vector", pa.list_(pa.float32(), 2)),
    ]
)


def test_schema_survives_text():
    assert decode_schema(encode_schema(TRAINED)).equals(TRAINED)


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


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.null(), pa.list_(pa.int32())], ids=str)
def test_width_is_free(kind):
    check_ids(pa.schema([("user", kind)]), TRAINED, ["user", "tags"], "rows")


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.string()), pa.float64()], ids=str)
def test_other_kinds_are_refused(kind):
    with pytest.raises(
        UserError, match=r"rows: column 'user' has .*, in training it had integers: .*\nCast it to int64"
    ):
        check_ids(pa.schema([("user", kind)]), TRAINED, ["user"], "rows")


def test_rows_take_the_types_of_training():
    rows = [{"user": 1, "tags": ["a"], "price": 2, "vector": [1, 2], "more": 0}, dict.fromkeys(TRAINED.names)]
    table = table_of(rows, TRAINED.names, TRAINED)
    assert table.schema.types == [pa.int64(), pa.list_(pa.string()), pa.float32(), pa.list_(pa.float32())]
    assert table.to_pylist() == [{"user": 1, "tags": ["a"], "price": 2.0, "vector": [1.0, 2.0]}, rows[1]]


def test_without_known_types_they_are_guessed():
    nulls = pa.schema([("user", pa.list_(pa.null()))])
    for trained in (None, nulls):
        assert table_of([{"user": ["a"]}], ["user"], trained).schema.types == [pa.list_(pa.string())]


@pytest.mark.parametrize("user", ["1", 2**64, [1], {}])
def test_values_of_another_kind_are_refused(user):
    with pytest.raises(UserError, match=r"'user': .*\nSend what the column holds in training: int64"):
        table_of([{"user": user}], ["user"], TRAINED)


def test_missing_keys_are_refused():
    with pytest.raises(UserError, match="row 1 has no 'user'\nSend null"):
        table_of([{"user": 1}, {"usr": 1}], ["user"], TRAINED)
