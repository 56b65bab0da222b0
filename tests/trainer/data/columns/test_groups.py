"""Groups of rows: one number for each distinct value, whatever holds it."""

import pyarrow as pa
import pytest
import xxhash

from configs.errors import UserError
from trainer.data.columns.groups import group_ids

TEXTS = ["bob", "", "ann", "bob"]


def read(column: pa.Array) -> list[int]:
    return group_ids(pa.table({"user": column}), "user", "f.parquet, row group 0").tolist()


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_strings_are_hashed(type_: pa.DataType) -> None:
    signed = [xxhash.xxh64_intdigest(text.encode()) for text in TEXTS]
    assert [group % 2**64 for group in read(pa.array(TEXTS).cast(type_))] == signed


@pytest.mark.parametrize("type_", [pa.int64(), pa.int32(), pa.uint8()])
def test_integers_stand_for_themselves(type_: pa.DataType) -> None:
    column = pa.array([7, 0, 7, 200]).cast(type_)
    assert read(column) == read(column.dictionary_encode()) == [7, 0, 7, 200]


def test_a_missing_group_is_named() -> None:
    with pytest.raises(UserError, match=r"f.parquet, row group 0, row 1: column 'user' is null"):
        read(pa.array([1, None]))


@pytest.mark.parametrize("column", [pa.array([0.5]), pa.array([[1]])])
def test_other_types_are_refused(column: pa.Array) -> None:
    with pytest.raises(UserError, match=r"column 'user'.*\n.*group_column"):
        read(column)
