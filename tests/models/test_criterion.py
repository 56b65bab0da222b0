"""Task losses: values by hand, masks, groups of different losses, and options that are checked."""

import math

import pytest
import torch

from configs.choices import available
from configs.errors import UserError
from configs.schema import TaskConfig
from models.criterion import Criterion

TASKS = {
    "click": TaskConfig(),
    "watch": TaskConfig(loss="mse"),
    "like": TaskConfig(loss="focal", options={"gamma": 1.0}),
    "rating": TaskConfig(loss="huber", options={"delta": 2.0}),
    "share": TaskConfig(),
    "engagement": TaskConfig(loss="mse", output="sigmoid"),
}
LOGITS = torch.tensor([[0.0, 1.5, 0.0, 5.0, math.log(3), 0.0]])
LABELS = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 1.0]])
WANT = torch.tensor([math.log(2), 0.25, 0.5 * math.log(2), 2 * (4 - 1), math.log(4), 0.25])


def test_values_by_hand_in_the_order_of_the_tasks():
    losses = Criterion(TASKS)(LOGITS, LABELS, torch.ones(1, 6))
    torch.testing.assert_close(losses, WANT)


def test_rows_are_summed_with_their_weights_and_weight_zero_masks():
    logits, labels = LOGITS.repeat(3, 1), LABELS.repeat(3, 1)
    labels[2] = 1e6
    weights = torch.tensor([[1.0], [2.5], [0.0]]).repeat(1, 6)
    logits.requires_grad_()
    losses = Criterion(TASKS)(logits, labels, weights)
    torch.testing.assert_close(losses, 3.5 * WANT)
    losses.sum().backward()
    assert logits.grad is not None
    assert (logits.grad[2] == 0).all()
    assert (logits.grad[:2] != 0).all()


def test_predictions():
    predictions = Criterion(TASKS).predict(LOGITS)
    torch.testing.assert_close(predictions, torch.tensor([[0.5, 1.5, 0.5, 5.0, 0.75, 0.5]]))


def test_bf16_logits_give_float32_losses():
    losses = Criterion(TASKS)(LOGITS.bfloat16(), LABELS, torch.ones(1, 6))
    assert losses.dtype == torch.float32


@pytest.mark.parametrize("loss", available("models.losses"))
def test_every_loss_is_least_at_the_truth_and_falls_with_its_gradient(loss):
    criterion = Criterion({"task": TaskConfig(loss=loss)})
    label = torch.ones(1, 1)
    logit = torch.full((1, 1), -1.0, requires_grad=True)
    criterion(logit, label, label).sum().backward()
    assert logit.grad is not None
    assert logit.grad.item() < 0
    better = criterion(logit + 0.1, label, label)
    assert 0 < better.item() < criterion(logit, label, label).item()


@pytest.mark.parametrize("logit", [-200.0, 200.0])
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("loss", ["bce", "focal"])
def test_extreme_logits_stay_finite(loss, label, logit):
    x = torch.full((1, 1), logit, requires_grad=True)
    value = Criterion({"task": TaskConfig(loss=loss, options={"gamma": 0.5} if loss == "focal" else {})})(
        x, torch.full((1, 1), label), torch.ones(1, 1)
    )
    value.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(value).all()
    assert torch.isfinite(x.grad).all()


def test_focal_with_gamma_zero_is_cross_entropy():
    logits, labels = torch.randn(20, 1), torch.rand(20, 1)
    focal = Criterion({"task": TaskConfig(loss="focal", options={"gamma": 0.0})})
    bce = Criterion({"task": TaskConfig()})
    torch.testing.assert_close(focal(logits, labels, labels), bce(logits, labels, labels))


def test_mistakes_name_the_task_and_the_choices():
    with pytest.raises(UserError, match="'bcee' is not in models/losses: did you mean bce"):
        Criterion({"task": TaskConfig(loss="bcee")})
    with pytest.raises(UserError, match=r"tasks\.task\.options\.gama unknown key; did you mean gamma\?\n"):
        Criterion({"task": TaskConfig(loss="focal", options={"gama": 1})})
    with pytest.raises(UserError, match="has no effect: it belongs to focal, and this is bce"):
        Criterion({"task": TaskConfig(options={"gamma": 1})})
