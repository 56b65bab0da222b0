"""Positives weighed by another label's value: 1 for negatives and for what is missing, growing and capped otherwise."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from trainer.data.columns.reweighting.by_label import Settings, build


def factors(values: list[float | None], labels: list[float], **settings) -> list[float]:
    table = pa.table({"watch": pa.array(values, pa.float32())})
    rule = build(Settings(label="watch", **settings))
    assert rule.columns == ("watch",)
    given_labels = np.array(labels, np.float32)
    result = rule(table, given_labels, "f.parquet")
    assert result.dtype == np.float32
    return result.tolist()


def test_known_values() -> None:
    assert factors([0, 1, 3, None], [1, 1, 1, 1], growth="linear") == [1, 2, 4, 1]
    assert factors([0, 1, 3], [1, 1, 1]) == pytest.approx([1, 1 + np.log(2), 1 + np.log(4)])
    assert factors([30], [1], growth="linear", scale=10) == [4]
    assert factors([30, 1], [1, 1], growth="linear", cap=3) == [3, 2]
    assert factors([8, 8, 8], [0, 0.5, 1], growth="linear") == [1, 5, 9]


@given(
    st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=20),
    st.sampled_from(["log1p", "linear"]),
    st.floats(1, 100),
    st.floats(0.1, 100),
)
def test_more_never_weighs_less_and_never_beyond_the_cap(values, growth, cap, scale) -> None:
    found = factors(sorted(values), [1.0] * len(values), growth=growth, cap=cap, scale=scale)
    assert found == sorted(found)
    assert found[0] >= 1
    assert found[-1] <= np.float32(cap)


@pytest.mark.parametrize("value", [-1.0, float("inf")])
def test_what_gives_no_weight_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"f\.parquet, row 1: column 'watch' is .*, which gives no weight\n"):
        factors([1.0, value], [0, 0])
