"""Splitting by key and joining again changes nothing."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from models.batched.grouping import Grouping


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(0, 1))
def test_join_undoes_split(keys, dim):
    x = torch.arange(len(keys) * 3).reshape(len(keys), 3)
    x = x if dim == 0 else x.T
    grouping = Grouping(keys)
    parts = grouping.split(x, dim)
    assert len(parts) == len(set(keys))
    for key, group, part in zip(grouping.keys, grouping.groups, parts, strict=True):
        assert [keys[position] for position in group] == [key] * len(group)
        assert torch.equal(part, x.index_select(dim, torch.tensor(group)))
    assert torch.equal(grouping.join(parts, dim), x)
