"""When a link is due by the clock: rank 0 looks at its own, and all ranks save after the same step.

Its word travels with the gradients of a step (`embeddings.dense_gradients`) and is acted on two steps after it was
given (four on GPUs), so no step waits for it. Links that are due by steps are `due`'s business.
"""

import time
from collections.abc import Callable

from embeddings.dense_gradients import DenseGradients, Word


class LinkClock:
    """All ranks make one, and call its methods around each step."""

    def __init__(
        self, every_s: float | None, rank: int, gradients: DenseGradients, is_busy: Callable[[], bool]
    ) -> None:
        """is_busy: whether a save is going on; another one would have to wait for it."""
        self._every_s, self._gradients, self._is_busy = every_s, gradients, is_busy
        self._rank, self._is_asked, self._last = rank, False, time.monotonic()

    def before_step(self) -> None:
        if self._every_s is None or self._rank or self._is_asked or self._is_busy():
            return
        if time.monotonic() - self._last >= self._every_s:
            self._gradients.tell(Word.SAVE)
            self._is_asked = True

    def is_due(self) -> bool:
        """After each step, once: whether the state is to be saved now; the same on all ranks."""
        return self._gradients.is_told(Word.SAVE)

    def saved(self) -> None:
        """Something was saved at this step, for whatever reason."""
        self._last, self._is_asked = time.monotonic(), False
