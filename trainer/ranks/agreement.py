"""Small objects exchanged by all ranks over a gloo group of their own, so that all decide alike.

A group of its own may be used by a background thread while the training step uses the default one.
"""

import weakref
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class Agreement:
    """The ranks of `group` (default: all), or one process without torch.distributed. Made on all ranks together.

    Args:
        timeout: after which a rank that does not answer is an error on the others. A dead one is noticed at once.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, timeout: timedelta = timedelta(hours=1)) -> None:
        self.group: dist.ProcessGroup | None = None
        self.rank, self.world_size = 0, 1
        if dist.is_available() and dist.is_initialized():
            ranks = dist.get_process_group_ranks(group if group is not None else dist.group.WORLD)
            made = dist.new_group(ranks, timeout=timeout, backend="gloo")
            assert isinstance(made, dist.ProcessGroup), "this rank is in the group"
            self.group = made
            # A process may train many runs. A background thread that still agrees keeps its group alive.
            weakref.finalize(self, _destroy, made).atexit = False
            self.rank, self.world_size = dist.get_rank(self.group), len(ranks)

    @property
    def is_alone(self) -> bool:
        return self.group is None

    def gather(self, value: T) -> list[T]:
        """The value of every rank, on every rank."""
        if self.group is None:
            return [value]
        values: list = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def from_first(self, value: T) -> T:
        """The value of rank 0, on every rank."""
        if self.group is None:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=dist.get_global_rank(self.group, 0), group=self.group)
        return values[0]


class AnyRank:
    """Whether some rank says so: all hear it one call later, so that nobody waits for it."""

    def __init__(self, ranks: Agreement) -> None:
        self._ranks = ranks
        self._said = torch.zeros(())
        self._exchange: dist.Work | None = None

    def __call__(self, mine: bool) -> bool:
        """What some rank said in the call before; the same on all ranks, which call it equally often."""
        before = self.close()
        self._said.fill_(float(mine))
        if self._ranks.group is not None:
            self._exchange = dist.all_reduce(self._said, dist.ReduceOp.MAX, self._ranks.group, async_op=True)
        return before

    def close(self) -> bool:
        """What some rank said in the last call."""
        if self._exchange is not None:
            self._exchange.wait()
            self._exchange = None
        return bool(self._said)


def _destroy(group: dist.ProcessGroup) -> None:
    with suppress(ValueError):  # it is unknown: it went with its default group, and there may be another by now
        dist.destroy_process_group(group)
