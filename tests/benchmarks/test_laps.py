"""The clock of a step's parts: each part gets what passed since the border before it, in both directions."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.laps import Laps, watch_top


class Hand:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowTop(nn.Module):
    """Takes 2 seconds forward and 4 backward."""

    def __init__(self, clock: Hand) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self._clock = clock

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self._clock.now += 2
        product = x * self.weight
        product.register_hook(self._backward)
        return product.sum(dim=1, keepdim=True), {}

    def _backward(self, grad: Tensor) -> None:
        self._clock.now += 4


@pytest.fixture
def clock() -> Hand:
    return Hand()


def test_a_part_has_the_time_between_its_borders(clock: Hand) -> None:
    top, laps = SlowTop(clock), Laps(clock)
    watch_top(laps, top, "rest")
    x = torch.ones(4, 3, requires_grad=True)
    for loss_seconds in (1.0, 3.0, 8.0):
        laps.start()
        logits, _ = top(x)
        clock.now += loss_seconds
        logits.sum().backward()
        clock.now += 0.5
        laps.stop("rest")
    assert laps.medians() == {"rest": 0.5, "top forward": 2, "loss": 3, "top backward": 4}


def test_nothing_is_timed_between_steps(clock: Hand) -> None:
    top, laps = SlowTop(clock), Laps(clock)
    watch_top(laps, top, "rest")
    top(torch.ones(4, 3, requires_grad=True))[0].sum().backward()
    assert laps.steps == []
