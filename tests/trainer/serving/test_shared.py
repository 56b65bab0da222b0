"""Rows that have columns in common score as whole rows do, whichever columns those are."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.export.exported_runs import exported, rows
from trainer.serving.bundle import Bundle

COLUMNS = ("liked", "user", "item", "item_weight", "tag", "age", "price", "vector")
TABLE = rows(100).select(COLUMNS)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle(exported(tmp_path_factory.mktemp("bundle")))


def scores(bundle: Bundle, shared: frozenset[str], of_calls: list[int], call_of_row: list[int]) -> tuple:
    """(whole rows, the same as calls that share columns): call c has those of row of_calls[c], row r the others of
    row r. Weights go with their IDs, of which they must be as many."""
    shared |= {"item_weight"} if "item" in shared else set()
    halves, call_of = bundle.halves(shared), np.array(call_of_row)
    columns = {name: np.array(of_calls)[call_of] if name in shared else np.arange(len(call_of)) for name in COLUMNS}
    whole = pa.table({name: TABLE[name].take(pa.array(places)) for name, places in columns.items()})
    own = halves.each.columns  # among them shared ones that are read beside others
    once = bundle.columns(TABLE.take(of_calls).select(halves.once.columns), "rows", 0, halves.once)
    each = bundle.columns(whole.select(own), "rows", 0, halves.each)
    return bundle.predict(whole), bundle.score_shared(halves, once, each, call_of)


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(), shared=st.frozensets(st.sampled_from(sorted({*COLUMNS} - {"item_weight"}))), calls=st.integers(1, 4)
)
def test_any_columns_may_be_shared(bundle: Bundle, data: st.DataObject, shared: frozenset[str], calls: int) -> None:
    of_calls = data.draw(st.lists(st.integers(0, 99), min_size=calls, max_size=calls))
    call_of_row = data.draw(st.lists(st.integers(0, calls - 1), min_size=1, max_size=20))
    whole, found = scores(bundle, shared, of_calls, call_of_row)
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_more_rows_than_one_call_of_the_program_takes(bundle: Bundle) -> None:
    halves, call_of = bundle.halves(frozenset({"liked", "user"})), np.repeat([1, 0], [400, 500])
    table = pa.concat_tables([TABLE] * 9)
    liked, user = (TABLE[name].take(pa.array(call_of)) for name in ("liked", "user"))
    whole = table.set_column(0, "liked", liked).set_column(1, "user", user)
    once = bundle.columns(TABLE.slice(0, 2).select(halves.once.columns), "rows", 0, halves.once)
    each = bundle.columns(table.select(halves.each.columns), "rows", 0, halves.each)
    np.testing.assert_allclose(bundle.score_shared(halves, once, each, call_of), bundle.predict(whole), atol=1e-6)


def test_a_bundle_without_the_program_repeats_what_is_shared(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_shared", None)
    whole, found = scores(bundle, frozenset({"liked", "user", "item"}), [3, 8], [0] * 5 + [1] * 7)
    np.testing.assert_allclose(found, whole, atol=1e-6)
