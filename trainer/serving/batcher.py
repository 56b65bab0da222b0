"""Requests that wait at the same time are scored in one call.

No request waits for others to come: while one call runs, what arrives gathers for the next. So batches grow with the
load, and a lone request is answered at once.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.serving.bundle import Bundle
from trainer.serving.rows import table_of

Rows = Sequence[dict[str, Any]]
Predictions = npt.NDArray[np.float32]


class OverloadedError(Exception):
    """So many rows are waiting that another request would only wait too long."""


class Batcher:
    """Scores rows for many coroutines of one event loop.

    Args:
        max_rows: of one call; a larger request is a call of its own.
        max_waiting: rows that may wait before requests are turned away.
    """

    def __init__(self, bundle: Bundle, max_rows: int, max_waiting: int) -> None:
        self._bundle, self._max_rows, self._max_waiting = bundle, max_rows, max_waiting
        self._waiting: deque[tuple[Rows, asyncio.Future[Predictions]]] = deque()
        self._rows_waiting = 0
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")

    async def predict(self, rows: Rows) -> Predictions:
        """Predictions [R, T] of R rows.

        Raises:
            UserError: these rows cannot be scored.
            OverloadedError: too many others are waiting.
        """
        if self._rows_waiting and self._rows_waiting + len(rows) > self._max_waiting:
            raise OverloadedError(f"{self._rows_waiting} rows are waiting already; try again or start more servers")
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, future))
        self._rows_waiting += len(rows)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken = self._take()
            results = await loop.run_in_executor(self._thread, score, self._bundle, [rows for rows, _ in taken])
            for (_, future), result in zip(taken, results, strict=True):
                if future.done():  # its client is gone
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _take(self) -> list[tuple[Rows, asyncio.Future[Predictions]]]:
        taken, count = [self._waiting.popleft()], 0
        count += len(taken[0][0])
        while self._waiting and count + len(self._waiting[0][0]) <= self._max_rows:
            taken.append(self._waiting.popleft())
            count += len(taken[-1][0])
        self._rows_waiting -= count
        return taken


def score(bundle: Bundle, requests: Sequence[Rows]) -> list[Predictions | Exception]:
    """Predictions of each request, scored together; with a mistake among them, each alone, so that it hits its own."""
    try:
        rows = [row for request in requests for row in request]
        predictions = bundle.predict(table_of(rows, bundle.transforms.columns, bundle.id_columns), "request")
    except Exception as error:
        if len(requests) == 1:
            return [error]
        return [result for request in requests for result in score(bundle, [request])]
    ends = np.cumsum([len(request) for request in requests])
    return list(np.split(predictions, ends[:-1]))
