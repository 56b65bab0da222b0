"""Funnels: ESMM's product of probabilities, AITM's transfer and price, at every scale and through every top."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.choices import available
from configs.errors import UserError
from configs.schema import ModelConfig, TaskConfig
from models.build import build_top
from models.criterion import Criterion
from models.funnel import EntireSpace, Transfer
from tests.models.configs import dense_inputs

FUNNEL = {
    "buy": TaskConfig(parent="cart"),
    "click": TaskConfig(),
    "cart": TaskConfig(parent="click"),
    "watch": TaskConfig(loss="mse"),
}
AITM = {name: task.model_copy(update={"relation": "aitm"}) for name, task in FUNNEL.items()}


@given(st.lists(st.floats(-30, 8), min_size=4, max_size=4))
def test_probabilities_multiply_along_the_chain(values):
    logits = torch.tensor([values], dtype=torch.float32)
    got = EntireSpace(FUNNEL)(logits).double()
    buy, click, cart, watch = logits.double().unbind(1)
    want = {"buy": [buy, click, cart], "click": [click], "cart": [click, cart]}
    for index, name in enumerate(("buy", "click", "cart")):
        product = torch.stack([part.sigmoid() for part in want[name]]).prod(dim=0)
        torch.testing.assert_close(got[:, index].sigmoid(), product, rtol=1e-4, atol=1e-30)
    torch.testing.assert_close(got[:, 3], watch)


@pytest.mark.parametrize("value", [-100.0, 0.0, 40.0, 100.0])
def test_extreme_logits_give_finite_losses_and_gradients(value):
    logits = torch.full((1, 4), value, requires_grad=True)
    ones = torch.ones(1, 4)
    Criterion(FUNNEL)(EntireSpace(FUNNEL)(logits), 0 * ones, ones)[:3].sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_product_stops_where_the_relation_is_another():
    tasks = {**FUNNEL, "cart": AITM["cart"]}
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    got = EntireSpace(tasks)(logits)
    assert got[0, 1:].tolist() == [1.0, 2.0, 3.0]
    assert got[0, 0].sigmoid().item() == pytest.approx(0.5 * torch.tensor(2.0).sigmoid().item())


@pytest.mark.parametrize("tasks", [FUNNEL, AITM], ids=["esmm", "aitm"])
@pytest.mark.parametrize("top", available("models.tops"))
def test_every_top_carries_a_funnel(top, tasks):
    tasks = {**tasks, "click": tasks["click"].model_copy(update={"tower_layers": (7, 6)})}
    torch.manual_seed(0)
    module = build_top(ModelConfig(top=top, expert_layers=(8,), tower_layers=(6,)), tasks, dense_inputs(10)).eval()
    x = torch.randn(5, 10)
    logits, _ = module(x)
    Criterion(tasks)(logits, torch.ones(5, 4), torch.ones(5, 4)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    if tasks["buy"].relation == "esmm":
        assert (logits[:, 0] < logits[:, 2]).all()
        assert (logits[:, 2] < logits[:, 1]).all()
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("B", min=1)},)).module()
    torch.testing.assert_close(program(x[:1])[0], module(x[:1])[0])
    torch.testing.assert_close(program(x)[0], logits)


def test_a_child_learns_from_its_parents_tower():
    """The child's loss reaches the parent's tower under AITM, and not the other way round."""
    tasks = {"click": TaskConfig(), "buy": TaskConfig(parent="click", relation="aitm", order_penalty=0)}
    module = build_top(ModelConfig(top="single_task", expert_layers=(8,), tower_layers=(6,)), tasks, dense_inputs(10))
    x = torch.randn(5, 10)
    first = module.get_parameter("towers.groups.0.first.weight")
    for task, reached in ((0, [True, False]), (1, [True, True])):
        (grad,) = torch.autograd.grad(module(x)[0][:, task].sum(), first)
        assert [bool(part.abs().max() > 0) for part in grad] == reached


def test_transfer_is_attention_over_parent_and_child():
    torch.manual_seed(0)
    transfer = Transfer(4).double()
    parent, child = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    weight, bias = transfer.attention.weight, transfer.attention.bias
    for row in range(3):
        inputs = [torch.relu(transfer.information(parent[row])), child[row]]
        value, key, query = ([u @ weight[a : a + 4].T + bias[a : a + 4] for u in inputs] for a in (0, 4, 8))
        scores = [torch.exp(k @ q / 2) for k, q in zip(key, query, strict=True)]
        want = (scores[0] * value[0] + scores[1] * value[1]) / sum(scores)
        torch.testing.assert_close(transfer(parent, child)[row], want)


def test_predicting_more_than_the_parent_costs():
    tasks = {"click": TaskConfig(), "buy": TaskConfig(parent="click", relation="aitm", order_penalty=2.0)}
    free = {**tasks, "buy": tasks["buy"].model_copy(update={"order_penalty": 0.0})}
    logits = torch.tensor([[0.0, math.log(3)], [0.0, -1.0], [0.0, 5.0]])
    labels, weights = torch.zeros(3, 2), torch.tensor([[1.0, 3.0], [1.0, 3.0], [1.0, 0.0]])
    extra = Criterion(tasks)(logits, labels, weights) - Criterion(free)(logits, labels, weights)
    torch.testing.assert_close(extra, torch.tensor([0.0, 2.0 * 3.0 * 0.25]))


def test_mistakes_name_the_task():
    def build(tasks: dict[str, TaskConfig], **model) -> None:
        build_top(ModelConfig(**model), tasks, dense_inputs(10))

    with pytest.raises(UserError, match=r"tasks\.buy\.parent is 'klick', which is no task"):
        build({"buy": TaskConfig(parent="klick")})
    with pytest.raises(UserError, match=r"tasks\.a\.parent leads back to a \(a -> b -> a\)"):
        build({"a": TaskConfig(parent="b"), "b": TaskConfig(parent="a")})
    with pytest.raises(UserError, match="do not both predict probabilities"):
        Criterion({"click": TaskConfig(), "watch": TaskConfig(loss="mse", parent="click")})
    aitm = {"click": TaskConfig(), "buy": TaskConfig(parent="click", relation="aitm", tower_layers=(5,))}
    with pytest.raises(UserError, match=r"tasks\.buy\.relation is aitm.* has 5 numbers .* has 16"):
        build(aitm)
