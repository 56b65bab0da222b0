"""A task with side towers, trained on one and two workers, measured, exported, and scored as trained."""

from pathlib import Path

import pytest
import torch

from tests.trainer.test_train import final_state, relative, small
from tests.trainer.workers import losses, train_on
from trainer.export.write import export
from trainer.serving.bundle import Bundle

SIDE = "tasks.click.tower_features=[hour, device, age]"


@pytest.mark.slow
def test_side_towers_train_alike_on_any_number_of_workers_and_are_served(tmp_path: Path) -> None:
    data = str(tmp_path / "feed")
    for world_size in (1, 2):
        config = small(data, tmp_path / str(world_size), "model.dropout=0", "training.max_steps=12", SIDE)
        train_on(config, world_size)
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert max(relative(one[step], two[step]) for step in one) < 1e-5
    plain = small(data, tmp_path / "plain", "model.dropout=0", "training.max_steps=1")
    train_on(plain, 1)
    assert relative(one[1], losses(tmp_path / "plain")[1]) > 1e-5  # the side logit counts from the first step

    state = final_state(tmp_path / "2")
    side = {name: weights for name, weights in state.items() if name.startswith("model/top.side.click")}
    assert {weights.shape for weights in side.values()} == {(16, 9), (16,), (1, 16), (1,)}
    assert all(torch.isfinite(weights).all() for weights in side.values())
    bundle = Bundle(export(str(tmp_path / "2")))
    assert bundle.signature.parity.largest_difference <= 1e-5
    assert bundle.signature.parity.data_rows > 0
