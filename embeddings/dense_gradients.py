"""Averages over ranks the gradients of what every rank holds whole: the top, the balance, data-parallel tables.

One flat buffer in the order of the parameters, and one all-reduce of it, from the first step of a process on. Sums of
three ranks or more depend on the place of a number in the buffer, so a layout of its own for the first step, as
DistributedDataParallel has, would let a resumed run end with other bits than an undisturbed one.

One more number goes with the gradients: whether some rank has something to tell all, which so costs no exchange of its
own.
"""

from collections import deque
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.model_parallel import DataParallelWrapper, DistributedModelParallel
from torchrec.distributed.types import ShardingEnv


class DenseGradients:
    """The gradients of some parameters, averaged once a step; nothing to do for one rank.

    The exchange starts inside `backward()`, as soon as the last of the gradients is there: while the tables' own
    backward pass runs. It is over when `average` returns.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        """parameters: the same on all ranks of the default group, in the same order."""
        self._parameters = list(parameters)
        self._world_size = dist.get_world_size() if dist.is_initialized() else 1
        self._missing = len(self._parameters)  # gradients that the backward pass has not made yet
        self._exchange: dist.Work | None = None
        self._tells = self._listens = False
        self._told: deque[_Told] = deque(maxlen=2)
        if self._world_size == 1 or not self._parameters:
            return
        sizes = [parameter.numel() for parameter in self._parameters]
        self._flat = torch.zeros(sum(sizes) + 1, device=self._parameters[0].device)
        parts = zip(self._flat[:-1].split(sizes), self._parameters, strict=True)
        self._views = [part.view(parameter.shape) for part, parameter in parts]
        for parameter in self._parameters:
            parameter.register_post_accumulate_grad_hook(self._arrived)

    def listen(self) -> None:
        """Has `is_told` know; on all ranks together, before the first step."""
        self._listens = True

    def tell(self) -> None:
        """Has `is_told` be true on all ranks after the step that follows the coming one."""
        self._tells = True

    def is_told(self) -> bool:
        """Whether a rank told something before the last step but one; the same on all ranks."""
        return len(self._told) == 2 and self._told[0].is_true()

    def average(self) -> None:
        """Returns with the mean over ranks in every gradient. A parameter without one, on all ranks, keeps none."""
        if self._world_size == 1 or not self._parameters:
            self._hear(torch.tensor(float(self._tells)))
            self._tells = False
            return
        if self._exchange is None:  # the step had no use for some parameter
            self._start()
        assert self._exchange is not None
        self._exchange.wait()
        self._hear(self._flat[-1])
        self._flat.div_(self._world_size)
        for parameter, view in zip(self._parameters, self._views, strict=True):
            if parameter.grad is not None:
                parameter.grad = view if view.dtype == parameter.dtype else view.to(parameter.dtype)
        self._exchange, self._missing = None, len(self._parameters)

    def _hear(self, number: Tensor) -> None:
        if self._listens:
            self._told.append(_Told(number))

    def _arrived(self, parameter: Tensor) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._start()

    @torch.no_grad()
    def _start(self) -> None:
        for parameter, view in zip(self._parameters, self._views, strict=True):
            if parameter.grad is None:
                view.zero_()
            elif parameter.grad is not view:
                view.copy_(parameter.grad)
        self._flat[-1] = float(self._tells)
        self._tells = False
        self._exchange = dist.all_reduce(self._flat, async_op=True)


class _Told:
    """A number of the device, on its way to the host."""

    def __init__(self, number: Tensor) -> None:
        self._number = torch.empty((), pin_memory=number.is_cuda)
        self._number.copy_(number, non_blocking=True)
        self._copied = torch.cuda.current_stream(number.device).record_event() if number.is_cuda else None

    def is_true(self) -> bool:
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._number)


class WithoutDDP(DataParallelWrapper):
    """Tells torchrec to leave gradients alone: `DenseGradients` averages them."""

    def wrap(self, dmp: DistributedModelParallel, env: ShardingEnv, device: torch.device) -> None:
        dmp._dmp_wrapped_module = dmp._dmp_wrapped_module.to(device)
        for module in dmp._dmp_wrapped_module.modules():
            if isinstance(module, ShardedEmbeddingBagCollection):
                _unwrap(module._lookups)


def _unwrap(lookups: list[nn.Module]) -> None:
    """Data-parallel tables have come in a DistributedDataParallel of their own."""
    for place, lookup in enumerate(lookups):
        if isinstance(lookup, DistributedDataParallel):
            lookups[place] = lookup.module
