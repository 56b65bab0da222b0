"""Calls that wait at the same time are scored together, by the event loop itself.

There is no thread and no clock. A turn of the loop reads what has arrived; when nothing new came in the last turn, or
enough has, the waiting calls become a batch, are scored, and are answered. So a lone request is answered at once,
and under load batches grow by themselves. A call of very many rows is scored slice by slice: between two slices the
loop turns, and smaller calls get their batch.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.serve_config import ServeConfig
from trainer.serving.server.calls import Call
from trainer.serving.server.models import Version
from trainer.serving.server.refusals import RefusedError
from trainer.serving.server.scoring import Durations, predict, predict_shared

Predictions = npt.NDArray[np.float32]


@dataclass(eq=False)
class Waiting:
    """A call in the queue. columns, slices, rows_done: of one that is scored slice by slice."""

    version: Version
    call: Call
    future: "asyncio.Future[Predictions]"
    arrived_ns: int
    deadline_ns: int | None
    columns: dict[str, pa.Array] | None = None
    slices: list[Predictions] = field(default_factory=list)
    rows_done: int = 0


class Batcher:
    """Scores calls of the coroutines of one event loop. What it takes and how much is in the settings."""

    def __init__(self, settings: ServeConfig) -> None:
        self._max_rows, self._max_waiting = settings.rows_per_call, settings.max_waiting_rows
        self._max_delay_ns = int(settings.batch_delay_ms * 1e6)
        self._retry_after_s = settings.retry_after_s
        self._waiting: deque[Waiting] = deque()
        self._large: deque[Waiting] = deque()
        self.rows_waiting = 0
        self._has_new = self._is_due = False

    async def predict(self, version: Version, call: Call, timeout_s: float | None = None) -> Predictions:
        """Predictions [R, T] of a call's R rows.

        Raises:
            UserError: these rows cannot be scored.
            RefusedError: too many are waiting (503), or the time is up (504).
        """
        if self.rows_waiting and self.rows_waiting + call.rows > self._max_waiting:
            version.counters.add("turned_away")
            raise RefusedError(503, f"{self.rows_waiting} rows are waiting already", self._retry_after_s)
        loop, now = asyncio.get_running_loop(), time.perf_counter_ns()
        deadline = None if timeout_s is None else now + int(timeout_s * 1e9)
        waiting = Waiting(version, call, loop.create_future(), now, deadline)
        (self._large if call.rows > self._max_rows else self._waiting).append(waiting)
        self.rows_waiting += call.rows
        self._has_new = True
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._turn)
        return await waiting.future

    def _turn(self) -> None:
        oldest = self._waiting[0].arrived_ns if self._waiting else 0
        if self._has_new and oldest and time.perf_counter_ns() - oldest < self._max_delay_ns:
            self._has_new = False  # the loop may have more in its ears: what is there is read first
        elif self._waiting:
            self._score(self._take())
        elif self._large:
            self._slice()
        self._is_due = bool(self._waiting or self._large)
        if self._is_due:
            asyncio.get_running_loop().call_soon(self._turn)

    def _take(self) -> list[Waiting]:
        """The oldest call, and those behind it that can be joined, up to the rows of one batch. What calls share is
        no work for their rows."""
        first = self._waiting.popleft()
        taken, count, passed = [first], first.call.whole_rows, []
        version, kind = first.version, first.call.kind
        while self._waiting and count < self._max_rows and len(passed) < 64:
            one = self._waiting.popleft()
            fits = count + one.call.whole_rows <= self._max_rows
            if one.version is version and fits and (one.call.kind is kind or one.call.kind == kind):
                taken.append(one)
                count += one.call.whole_rows
            else:
                passed.append(one)
        self._waiting.extendleft(reversed(passed))
        self.rows_waiting -= sum(call.call.rows for call in taken)
        return taken

    def _score(self, taken: Sequence[Waiting]) -> None:
        begin = time.perf_counter_ns()
        alive = [one for one in taken if not self._is_over(one, begin)]
        if not alive:
            return
        version, counters = alive[0].version, alive[0].version.counters
        durations = Durations()
        results = score(version, [one.call for one in alive], durations)
        for one, result in zip(alive, results, strict=True):
            wait = begin - one.arrived_ns
            counters.add("wait_ns", wait)
            counters.took(0, wait)
            if isinstance(result, Exception):
                one.future.set_exception(result)
            else:
                counters.add("rows", len(result))
                one.future.set_result(result)
        counters.add("batches")
        counters.scored(sum(one.call.rows for one in alive))
        counters.add("transform_ns", durations.transform_ns * len(alive))
        counters.add("score_ns", durations.score_ns * len(alive))
        counters.took(2, durations.transform_ns, len(alive))
        counters.took(3, durations.score_ns, len(alive))

    def _slice(self) -> None:
        """Scores the next rows of the first large call; behind it the others wait their turn."""
        one = self._large[0]
        if self._is_over(one, time.perf_counter_ns()):
            self._large.popleft()
            self.rows_waiting -= one.call.rows
            return
        start = one.rows_done
        stop = min(start + self._max_rows, one.call.rows)
        durations = Durations()
        try:
            one.slices.append(_rows_of(one, start, stop, durations))
        except Exception as error:
            if not one.future.done():
                one.future.set_exception(error)
            one.rows_done = one.call.rows
        else:
            one.rows_done = stop
            one.version.counters.add("rows", stop - start)
            one.version.counters.add("batches")
            one.version.counters.scored(stop - start)
            one.version.counters.add("transform_ns", durations.transform_ns)
            one.version.counters.add("score_ns", durations.score_ns)
            if stop == one.call.rows and not one.future.done():
                one.future.set_result(np.concatenate(one.slices))
        if one.rows_done == one.call.rows:
            self._large.popleft()
            self.rows_waiting -= one.call.rows
        else:
            self._large.rotate(-1)

    def _is_over(self, one: Waiting, now: int) -> bool:
        """Whether nobody waits for a call any more: its client is gone, or its time is up."""
        if one.future.done():
            return True
        if one.deadline_ns is None or now < one.deadline_ns:
            return False
        one.version.counters.add("expired")
        one.future.set_exception(RefusedError(504, "the time that the request gave is up\nSend it with a longer one."))
        return True


def _rows_of(one: Waiting, start: int, stop: int, durations: Durations) -> Predictions:
    call = one.call
    if one.columns is None:
        one.columns = call.join([call])
    columns = {n: c if n in call.shared else c.slice(start, stop - start) for n, c in one.columns.items()}
    if call.shared:
        return predict_shared(one.version, columns, call.shared, stop - start, durations, start)
    return predict(one.version, columns, durations, start)


def score(version: Version, calls: Sequence[Call], durations: Durations) -> list[Predictions | Exception]:
    """Predictions of each call, scored together; with a mistake among them, each alone, so that it hits its own."""
    first = calls[0]
    try:
        columns = first.join(calls)
        if first.shared:
            predictions = predict_shared(version, columns, first.shared, first.rows, durations)
        else:
            predictions = predict(version, columns, durations)
    except Exception as error:
        if len(calls) == 1:
            return [error]
        return [result for call in calls for result in score(version, [call], durations)]
    if len(calls) == 1:
        return [predictions]
    ends = np.cumsum([call.rows for call in calls])
    return list(np.split(predictions, ends[:-1]))
