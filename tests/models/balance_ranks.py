"""What two ranks and one process compute with the same rows: run by test_balance_ranks in processes of their own."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from configs.schema import ModelConfig, TaskConfig
from models.build import build_balance, build_top
from models.criterion import Criterion
from models.experts import load_balance_loss
from models.fork import attach
from tests.models.configs import dense_inputs

TASKS = {"click": TaskConfig(), "watch": TaskConfig(loss="mse", weight=2.0), "like": TaskConfig(weight=0.5)}
ROWS, STEPS, OBSERVE_EVERY = 32, 12, 3


class Model(nn.Module):
    """Top, losses and balance as one scalar, the way a trainer wraps them."""

    def __init__(self, top: str, balance: str, world_size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.top = build_top(ModelConfig(top=top, expert_layers=(12, 8), tower_layers=(6,)), TASKS, dense_inputs(10))
        self.criterion, self.balance = Criterion(TASKS), build_balance(balance, TASKS)
        self.scale, self.world_size = world_size / ROWS, world_size
        attach(self.balance, self.top, all_reduce)

    def forward(self, x: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        logits, gates = self.top(x)
        losses = self.criterion(logits, labels, weights)
        loss = self.balance(losses * self.scale, weights.sum(dim=0) * self.scale) + 0.1 * load_balance_loss(
            gates, weights, all_reduce
        )
        return loss, losses.detach()


def all_reduce(x: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def average_gradients(model: nn.Module, world_size: int) -> None:
    """As a trainer does: the mean over ranks."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            all_reduce(parameter.grad).div_(world_size)


def train(top: str, balance: str, rank: int, world_size: int) -> dict[str, Tensor]:
    """State after a few steps, each rank on every world_size-th row."""
    model = Model(top, balance, world_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(1)
    seen = torch.zeros(2, len(TASKS))
    for step in range(STEPS):
        x, labels = torch.randn(ROWS, 10, generator=generator), torch.rand(ROWS, 3, generator=generator)
        weights = (torch.rand(ROWS, 3, generator=generator) < 0.8).float()
        mine: list[Any] = [part[rank::world_size] for part in (x, labels, weights)]
        loss, losses = model(*mine)
        optimizer.zero_grad()
        loss.backward()
        average_gradients(model, world_size)
        optimizer.step()
        seen += torch.stack([losses, mine[2].sum(dim=0)])
        if step % OBSERVE_EVERY == OBSERVE_EVERY - 1:
            sums, rows = all_reduce(seen)
            model.balance.observe(sums / rows)
            seen = torch.zeros_like(seen)
    return model.state_dict() | {"weights": model.balance.weights().detach()}


def one_rank(rank: int, world_size: int, folder: str, cases: list[tuple[str, str]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    states = {case: train(*case, rank, world_size) for case in cases}
    torch.save(states, Path(folder) / f"rank_{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
