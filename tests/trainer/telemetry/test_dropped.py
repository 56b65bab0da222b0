"""IDs that a transform drops are counted over all row groups, and warned of once."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from embeddings.features.bags import Bags
from embeddings.features.feature_transforms import Columns
from trainer.data.reading.dropped import DroppedIds
from trainer.telemetry.dropped import DroppedWatch, dropped_shares

CPU = torch.device("cpu")


def columns(ids: int, **dropped: int) -> Columns:
    bags = Bags(np.zeros(ids, np.int64), np.ones(ids, np.int32))
    return Columns({"user": bags, "item": bags}, np.zeros((ids, 0), np.float32), dropped)


def test_shares_are_of_all_ids_that_came() -> None:
    reader: Any = SimpleNamespace(dropped=DroppedIds(["user", "item"]))
    assert dropped_shares(reader, CPU) == {"user": 0.0, "item": 0.0}
    reader.dropped.add(columns(30, user=10))
    reader.dropped.add(columns(60))
    assert dropped_shares(reader, CPU) == {"user": pytest.approx(0.1), "item": 0.0}


def test_a_feature_is_warned_of_once() -> None:
    said: list[str] = []
    watch = DroppedWatch(said.append)
    reader: Any = SimpleNamespace(dropped=DroppedIds(["user", "item"]))
    reader.dropped.add(columns(30))
    assert watch(reader, CPU) == {"data/dropped_share/user": 0.0, "data/dropped_share/item": 0.0}
    assert said == []
    for _ in range(2):
        reader.dropped.add(columns(30, user=30))
        watch(reader, CPU)
    assert len(said) == 1
    assert said[0].startswith("warning: features.user: 33.33% of its IDs are outside the table")


def test_a_model_whose_features_drop_nothing_shows_nothing() -> None:
    reader: Any = SimpleNamespace(dropped=DroppedIds([]))
    assert DroppedWatch(print)(reader, CPU) == {}
