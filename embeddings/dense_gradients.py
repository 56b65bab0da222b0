"""Averages over ranks the gradients of what every rank holds whole: the top, the balance, data-parallel tables.

One flat buffer in the order of the parameters, and one all-reduce of it, from the first step of a process on. Sums of
three ranks or more depend on the place of a number in the buffer, so a layout of its own for the first step, as
DistributedDataParallel has, would let a resumed run end with other bits than an undisturbed one.

A number for each `Word` goes with the gradients: whether some rank has it to tell all. So it costs no exchange of its
own.
"""

from collections import deque
from collections.abc import Sequence
from enum import IntEnum

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.model_parallel import DataParallelWrapper, DistributedModelParallel
from torchrec.distributed.types import ShardingEnv


class Word(IntEnum):
    """What a rank may tell all."""

    SAVE = 0
    STOP = 1


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
        self._tells: set[Word] = set()
        self._told = _Told(kept=2)
        if self._world_size == 1 or not self._parameters:
            return
        if self._parameters[0].is_cuda:  # some steps behind its host, which would wait if it asked for the one before
            self._told = _Told(kept=4)
        sizes = [parameter.numel() for parameter in self._parameters]
        self._flat = torch.zeros(sum(sizes) + len(Word), device=self._parameters[0].device)
        self._words = self._flat[-len(Word) :]
        parts = zip(self._flat[: -len(Word)].split(sizes), self._parameters, strict=True)
        self._views = [part.view(parameter.shape) for part, parameter in parts]
        for parameter in self._parameters:
            parameter.register_post_accumulate_grad_hook(self._arrived)

    def tell(self, word: Word) -> None:
        """Has `is_told` be true on all ranks after the step that follows the coming one; on a GPU, two steps later."""
        self._tells.add(word)

    def is_told(self, word: Word) -> bool:
        """Whether a rank told the word before the last step but one (on a GPU, but three); the same on all ranks."""
        return self._told.is_true(word)

    def average(self) -> None:
        """Returns with the mean over ranks in every gradient. A parameter without one, on all ranks, keeps none."""
        if self._world_size == 1 or not self._parameters:
            self._told.put([float(word in self._tells) for word in Word])
            self._tells.clear()
            return
        if self._exchange is None:  # the step had no use for some parameter
            self._start()
        assert self._exchange is not None
        self._exchange.wait()
        self._told.put(self._words)
        self._flat.div_(self._world_size)
        for parameter, view in zip(self._parameters, self._views, strict=True):
            if parameter.grad is not None:
                parameter.grad = view if view.dtype == parameter.dtype else view.to(parameter.dtype)
        self._exchange, self._missing = None, len(self._parameters)

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
        self._words.zero_()
        for word in self._tells:
            self._words[word] = 1.0
        self._tells.clear()
        self._exchange = dist.all_reduce(self._flat, async_op=True)


class _Told:
    """What was told in the last steps: a number for each word."""

    def __init__(self, kept: int) -> None:
        self._last: deque[Sequence[float] | _OnItsWay] = deque([[0.0] * len(Word)] * kept, maxlen=kept)

    def put(self, numbers: Sequence[float] | Tensor) -> None:
        if not isinstance(numbers, Tensor):
            self._last.append(numbers)
        else:
            self._last.append(_OnItsWay(numbers) if numbers.is_cuda else numbers.tolist())

    def is_true(self, word: Word) -> bool:
        """Of the oldest step that is kept."""
        return self._last[0][word] > 0


class _OnItsWay:
    """Numbers of a GPU, which the host waits for only when it reads them."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = torch.empty(numbers.shape, pin_memory=True)
        self._numbers.copy_(numbers, non_blocking=True)
        self._copied = torch.cuda.current_stream(numbers.device).record_event()

    def __getitem__(self, place: int) -> float:
        self._copied.synchronize()
        return float(self._numbers[place])


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
