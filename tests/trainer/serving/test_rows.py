"""JSON values into columns: integers stay exact, and what no column can hold is named."""

import pytest

from configs.errors import UserError
from trainer.serving.rows import table_of


def column(values, ids=()):
    """(type, values) of a column of JSON values."""
    found = table_of([{"x": value, "more": {}} for value in values], ["x"], ids)["x"]
    return str(found.type), found.to_pylist()


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None], "int64", [1, None]),
        ([2**63, 2**64 - 1], "uint64", [2**63, 2**64 - 1]),
        ([2**64, 1], "double", [2.0**64, 1.0]),
        ([-1, 2**63], "double", [-1.0, 2.0**63]),
        ([2**60 + 1, 7.0], "int64", [2**60 + 1, 7]),
        ([1, 7.5], "double", [1.0, 7.5]),
        ([7.0, 8.0], "double", [7.0, 8.0]),
        ([10**400, -(10**400)], "double", [float("inf"), float("-inf")]),
        ([True, None], "bool", [True, None]),
        ([True, 2], "int64", [1, 2]),
        ([False, 2.5], "double", [0.0, 2.5]),
        (["a", "é", None], "large_string", ["a", "é", None]),
        ([None], "null", [None]),
        ([[1, None], None, []], "large_list<item: int64>", [[1, None], None, []]),
        ([[1], 2, None], "large_list<item: int64>", [[1], [2], None]),
        ([[], []], "large_list<item: null>", [[], []]),
        ([[0.5], [1, True]], "large_list<item: double>", [[0.5], [1.0, 1.0]]),
    ],
    ids=str,
)
def test_values_give_the_type(values, kind, expected):
    assert column(values) == (kind, expected)


def test_unsigned_ids_beside_negative_ones_keep_their_bits():
    assert column([-1, 2**64 - 1, 2**63], ids=["x"]) == ("int64", [-1, -1, -(2**63)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([None, 1, "a"], "row 2: 'x' holds text, and a number in a row before"),
        (["a", True], "row 1: 'x' holds a boolean, and text in a row before"),
        ([[], [1], [2, "a"]], "row 2: 'x' holds text"),
        ([None, {}], "row 1: 'x' holds an object"),
        ([[1], [[2]]], "row 1: 'x' holds a list in a list"),
        ([["a"], ["b", "\ud83d"]], r"row 1: 'x' holds '\\ud83d', which is no Unicode text"),
    ],
    ids=ascii,
)
def test_what_no_column_holds(values, message):
    with pytest.raises(UserError, match=message):
        column(values)


def test_missing_keys_are_refused():
    with pytest.raises(UserError, match="row 1 has no 'user'\nSend null"):
        table_of([{"user": 1}, {"usr": 1}], ["user"])
