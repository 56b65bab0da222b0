"""When a link is due by the clock: two steps after it was asked for, once, and not while a save is going on."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from embeddings.dense_gradients import DenseGradients
from trainer.link_clock import LinkClock


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def walk(clock: LinkClock, gradients: DenseGradients, steps: int) -> list[int]:
    """The steps after which a link was due, and was saved."""
    found = []
    for step in range(1, steps + 1):
        clock.before_step()
        gradients.average()
        if clock.is_due():
            clock.saved()
            found.append(step)
    return found


def test_a_link_is_due_after_the_step_that_follows_the_one_in_which_it_was_asked_for() -> None:
    gradients = DenseGradients([torch.nn.Parameter(torch.ones(3))])
    assert walk(LinkClock(1e-9, 0, gradients, lambda: False), gradients, 7) == [2, 4, 6]


def test_none_is_due_amid_a_save_before_its_time_or_without_a_clock() -> None:
    gradients = DenseGradients([torch.nn.Parameter(torch.ones(3))])
    assert walk(LinkClock(1e-9, 0, gradients, lambda: True), gradients, 5) == []
    assert walk(LinkClock(3600, 0, gradients, lambda: False), gradients, 5) == []
    assert walk(LinkClock(None, 0, gradients, lambda: False), gradients, 5) == []


def test_other_ranks_ask_for_none() -> None:
    gradients = DenseGradients([torch.nn.Parameter(torch.ones(3))])
    assert walk(LinkClock(1e-9, 1, gradients, lambda: False), gradients, 5) == []
