"""Where the time of a training step goes: a clock that is read at the borders of its parts, in the step itself.

Borders are hooks on modules, on gradients that come back through them, and on calls. A part that the step does not have
(any more) has no laps, and what it would have taken is in the part after it.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from trainer.build import Built
from trainer.ranker import Ranker

Clock = Callable[[], float]
PARTS = (
    "input",
    "exchange of IDs",
    "exchange of rows",
    "tables forward",
    "join",
    "top forward",
    "loss",
    "top backward",
    "tables backward",
    "all-reduce",
    "dense optimizer",
    "rest",
    "other threads",
)
"""In the order in which a step comes to them."""


class Laps:
    """Seconds of each part, step by step, of the calls between `start` and `stop`."""

    def __init__(self, clock: Clock = time.thread_time) -> None:
        self.steps: list[dict[str, float]] = []
        self.clock = clock
        self._running = False
        self._last = 0.0

    def start(self) -> None:
        self.steps.append(defaultdict(float))
        self._running, self._last = True, self.clock()

    def stop(self, part: str) -> None:
        self.end(part)
        self._running = False

    def end(self, part: str) -> None:
        """What passed since the last border belongs to `part`."""
        if self._running:
            now = self.clock()
            self.steps[-1][part] += now - self._last
            self._last = now

    def has(self, part: str) -> bool:
        """Whether this step had it already."""
        return self._running and part in self.steps[-1]

    def medians(self) -> dict[str, float]:
        """Seconds by part."""
        parts = {part: None for step in self.steps for part in step}
        return {part: statistics.median(step.get(part, 0.0) for step in self.steps) for part in parts}


def watch_step(laps: Laps, built: Built, pipeline: Any) -> None:
    """Puts the borders into a model that has made its first step (torchrec traces the model before that)."""
    ranker = next(module for module in built.model.modules() if isinstance(module, Ranker))
    ranker.register_forward_pre_hook(lambda *_: laps.end("rest"))
    for call, part in (
        ("enqueue_batch", "input"),
        ("start_sparse_data_dist", "exchange of IDs"),
        ("wait_sparse_data_dist", "exchange of IDs"),
    ):
        if hasattr(pipeline, call):
            _watch_call(laps, pipeline, call, "rest", part)
    _watch_tables(laps, ranker)
    watch_top(laps, built.top, "join")
    built.objective.register_forward_hook(lambda *inputs: _watch_loss(laps, *inputs))
    _watch_call(laps, built.optimizer, "step", "", "dense optimizer")
    _watch_call(laps, built.optimizer.gradients, "average", "dense optimizer", "all-reduce")


def watch_top(laps: Laps, top: nn.Module, before_it: str) -> None:
    """Forward, from where its input is there; backward, from the gradient of its logits to that of its input."""

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        laps.end(before_it)
        _at_gradient(laps, inputs[0], "top backward")

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, Any]) -> None:
        laps.end("top forward")
        _at_gradient(laps, output[0], "loss")

    top.register_forward_pre_hook(before)
    top.register_forward_hook(after)


def _watch_loss(laps: Laps, module: nn.Module, inputs: Any, output: tuple[Tensor, Any]) -> None:
    laps.end("loss")
    _at_gradient(laps, output[0], "rest")


def _watch_tables(laps: Laps, ranker: Ranker) -> None:
    """The tables' kernels apart from what is done around them for the sake of other ranks."""

    lookups = getattr(ranker.tables, "_lookups", [])

    def looked_up(module: nn.Module, inputs: Any, output: Tensor) -> None:
        laps.end("tables forward")
        if len(lookups) == 1:  # of several, one is exchanged while another's backward pass runs
            _at_gradient(laps, output, "exchange of rows")

    def pooled(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        values = inputs[0].values()  # waits for them
        laps.end("exchange of rows" if laps.has("tables forward") else "tables forward")
        _at_gradient(laps, values, "join")

    for lookup in lookups:
        lookup.register_forward_pre_hook(lambda *_: laps.end("exchange of IDs"))
        lookup.register_forward_hook(looked_up)
    if isinstance(getattr(ranker, "join", None), nn.Module):
        ranker.join.register_forward_pre_hook(pooled)


def _at_gradient(laps: Laps, tensor: Tensor, part: str) -> None:
    """`part` ends when the gradient of `tensor` is there."""

    def arrived(grad: Tensor) -> None:
        handle.remove()  # a leaf would keep it
        laps.end(part)

    if isinstance(tensor, Tensor) and tensor.requires_grad:
        handle = tensor.register_hook(arrived)


def _watch_call(laps: Laps, owner: Any, name: str, before: str, part: str) -> None:
    """`before` ends where owner.name is called, and `part` where it returns."""
    call = getattr(owner, name)

    def watched(*arguments: Any, **named: Any) -> Any:
        laps.end(before or ("tables backward" if laps.has("top backward") else "top backward"))
        result = call(*arguments, **named)
        laps.end(part)
        return result

    setattr(owner, name, watched)
