"""Every top: equal to its loop over experts, reproducible, traceable, exportable, trainable."""

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from configs.choices import available
from configs.errors import UserError
from configs.schema import ModelConfig, TaskConfig
from models.batched import mixing, products
from models.build import build_top
from tests.models import loops
from tests.models.configs import dense_inputs
from trainer.export.older_torch import export

TOPS = available("models.tops")
INPUT_DIM = 10
TASKS = {"click": TaskConfig(), "like": TaskConfig(tower_layers=(5,)), "watch": TaskConfig(loss="mse")}
PLAIN = {"expert_layers": (12, 8), "tower_layers": (6,)}
RICH = {
    "expert_layers": (12, 8, 8),
    "tower_layers": (6, 4),
    "gate_layers": (7, 5),
}
OWN = {"ple": {"num_task_experts": 2, "num_levels": 3}}
SHAPES = [PLAIN, RICH, {**RICH, "residual": True}, {**PLAIN, "expert_layers": (8,), "tower_layers": ()}]


def model(top: str, **options) -> ModelConfig:
    own = OWN.get(top, {}) if "gate_layers" in options else {}
    return ModelConfig(top=top, options=own, **{**PLAIN, **options})


def built(top: str, seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    return build_top(model(top, **options), TASKS, dense_inputs(INPUT_DIM))


def test_all_tops_are_there():
    assert {"single_task", "shared_bottom", "moe", "mmoe", "ple"} <= set(TOPS)


def test_an_unknown_top_names_the_nearest():
    with pytest.raises(UserError, match="did you mean mmoe"):
        build_top(ModelConfig(top="mmoee"), TASKS, dense_inputs(INPUT_DIM))


@pytest.fixture(params=["as it is", "as if it were large", "without oneDNN"])
def computation(request, monkeypatch):
    if request.param == "as if it were large":
        monkeypatch.setattr(mixing, "_FEW", 0)
    if request.param == "without oneDNN":
        monkeypatch.setattr(products, "_HAS_ONEDNN", False)


@pytest.mark.usefixtures("computation")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("top", TOPS)
def test_equals_the_loop_over_experts(top, shape, dtype, tolerance):
    module = built(top, **shape).to(dtype)
    x = torch.randn(9, INPUT_DIM, dtype=dtype, requires_grad=True)
    target = torch.randn(9, len(TASKS), dtype=dtype)
    leaves = [x, *module.parameters()]

    got, want = module(x)[0], loops.logits(module, x)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    got_grads = torch.autograd.grad(mse_loss(got, target), leaves)
    want_grads = torch.autograd.grad(mse_loss(want, target), leaves)
    for got_grad, want_grad in zip(got_grads, want_grads, strict=True):
        assert want_grad.abs().max() > 0
        torch.testing.assert_close(got_grad, want_grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("top", TOPS)
def test_gates_are_distributions_over_experts(top):
    logits, gates = built(top, **RICH)(torch.randn(9, INPUT_DIM))
    assert logits.shape == (9, len(TASKS))
    assert bool(gates) == (top in {"moe", "mmoe", "ple"})
    for weights in gates.values():
        assert weights.shape[0] == 9
        torch.testing.assert_close(weights.sum(dim=2), torch.ones(weights.shape[:2]))


@pytest.mark.parametrize("top", TOPS)
def test_a_seed_gives_one_model(top):
    first, again, other = (built(top, seed, normalization="layer") for seed in (1, 1, 2))
    x = torch.randn(4, INPUT_DIM)
    assert torch.isfinite(first(x)[0]).all()
    assert torch.equal(first(x)[0], again(x)[0])
    assert not torch.equal(first(x)[0], other(x)[0])


@pytest.mark.parametrize("top", TOPS)
def test_exports_with_a_dynamic_batch(top):
    module = built(top, **RICH).eval()
    dynamic = ({0: torch.export.Dim("B", min=1)},)
    program = export(module, (torch.randn(5, INPUT_DIM),), dynamic_shapes=dynamic).module()
    for rows in (1, 2, 64):
        x = torch.randn(rows, INPUT_DIM)
        torch.testing.assert_close(program(x)[0], module(x)[0])


@pytest.mark.parametrize("top", TOPS)
def test_traces_with_fx(top):
    for tasks in (TASKS, {"click": TaskConfig()}):
        module = build_top(model(top), tasks, dense_inputs(INPUT_DIM))
        x = torch.randn(3, INPUT_DIM)
        torch.testing.assert_close(torch.fx.symbolic_trace(module)(x)[0], module(x)[0])


@pytest.mark.parametrize("top", TOPS)
def test_learns_two_tasks(top):
    torch.manual_seed(0)
    tasks = {"sum": TaskConfig(loss="mse"), "sign": TaskConfig(loss="mse")}
    module = build_top(model(top), tasks, dense_inputs(INPUT_DIM))
    x = torch.randn(256, INPUT_DIM)
    target = torch.stack([x[:, :3].sum(dim=1) / 2, x[:, 3].sign()], dim=1)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(100):
        loss = mse_loss(module(x)[0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
