"""Dropout and noise as functions of row keys: shares, moments, independence, and any part of a batch by itself."""

import pytest
import torch
from torch import Tensor, nn

from configs.schema import ModelConfig, TaskConfig
from models.batched import parallel
from models.build import build_top
from models.draws import Dropout, Noise, share_row_keys
from tests.models.configs import dense_inputs

KEYS = torch.randint(-(2**63), 2**63 - 1, (4000,), generator=torch.Generator().manual_seed(0))
TASKS = {"click": TaskConfig(), "like": TaskConfig()}


def keyed(layer: nn.Module, keys: Tensor = KEYS) -> nn.Module:
    share_row_keys(layer).tensor = keys
    return layer


def drawing_top(name: str) -> nn.Module:
    torch.manual_seed(0)
    own = {"num_task_experts": 2} if name == "ple" else {}
    layers = {"expert_layers": (12, 8), "tower_layers": (6,), "options": own}
    model = ModelConfig(top=name, **layers, dropout=0.2, gate_noise=0.5, gate_dropout=0.3)
    return build_top(model, TASKS, dense_inputs(10))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_dropout_hides_its_share_and_keeps_the_mean(share: float) -> None:
    out = keyed(Dropout(share))(torch.ones(3, 11, 4000))
    hidden = (out == 0).float()
    error = 5 * (share * (1 - share) / out.numel()) ** 0.5
    assert abs(hidden.mean().item() - share) < error
    assert abs(out.mean().item() - 1) < error / (1 - share)
    assert (hidden.mean(dim=2) - share).abs().max() < error * 33**0.5  # of each column


@pytest.mark.parametrize("share", [0.0, 1e-9, 1 - 1e-9])
def test_extreme_shares_are_still_shares(share: float) -> None:
    out = keyed(Dropout(share))(torch.ones(64, 4000))
    assert torch.isfinite(out).all()
    assert abs((out == 0).float().mean().item() - share) < 1e-3


def test_noise_is_gaussian() -> None:
    x = torch.full((10, 4000), 3.0)
    drawn = ((keyed(Noise(0.5))(x) - x) / 0.5).double()
    moments = [drawn.pow(power).mean().item() for power in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.1)
    assert (drawn.abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=0.01)


def test_columns_rows_and_layers_are_independent() -> None:
    one, other = Noise(1.0), Noise(1.0)
    keyed(nn.ModuleList([one, other]))
    zeros = torch.zeros(8, 4000)
    columns = torch.cat([one(zeros), other(zeros)])
    beside = torch.cat([columns[:, :-1], columns[:, 1:]])  # of each row and of the next one
    assert (torch.corrcoef(beside) - torch.eye(32)).abs().max() < 0.1


def test_evaluation_draws_nothing() -> None:
    x = torch.randn(5, 40)
    for layer in (Dropout(0.5), Noise(1.0)):
        assert layer.eval()(x) is x


@pytest.mark.parametrize("name", ["mmoe", "moe", "ple", "shared_bottom", "single_task"])
def test_a_row_draws_the_same_alone_and_in_a_batch(name: str) -> None:
    top, x = drawing_top(name), torch.randn(40, 10)
    keys = share_row_keys(top)
    keys.tensor = KEYS[:40]
    whole, _ = top(x)
    again, _ = top(x)
    assert torch.equal(whole, again)
    for start, stop in ((0, 1), (7, 30)):
        keys.tensor = KEYS[start:stop]
        part, _ = top(x[start:stop])
        torch.testing.assert_close(part, whole[start:stop])
    keys.tensor = KEYS[40:80]
    assert not torch.allclose(top(x)[0], whole)


@pytest.mark.parametrize("name", ["mmoe", "ple"])
def test_layer_by_layer_draws_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a compiler or an export sees the top, without the stacks' own derivative."""
    top, x = drawing_top(name), torch.randn(40, 10, requires_grad=True)
    share_row_keys(top).tensor = KEYS[:40]
    outs = [top(x)[0]]
    monkeypatch.setattr(parallel, "is_traced", lambda x: True)
    outs.append(top(x)[0])
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*(torch.autograd.grad(out.square().sum(), x)[0] for out in outs))


def test_numbers_are_pinned() -> None:
    """A resumed run must draw what it would have drawn: these are part of the contract between versions."""
    dropout, noise = Dropout(0.5), Noise(1.0)
    keyed(nn.Sequential(dropout, noise), torch.tensor([1, 2, 3, 4]))
    kept = ["1001", "0011", "0011", "0110", "0100", "1000"]
    assert dropout.kept(torch.ones(6, 4)).int().tolist() == [[int(bit) for bit in row] for row in kept]
    assert noise(torch.zeros(1, 4)).tolist()[0] == pytest.approx([0.17016113, 0.25606927, -0.78142077, -0.45455512])
