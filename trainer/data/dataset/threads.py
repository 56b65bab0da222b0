"""Runs a function over many items in threads that a hung call cannot keep alive."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from trainer.data.dataset.faults import StorageUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], threads: int, timeout_s: float
) -> list[Result]:
    """`function` of each item, in order.

    Raises:
        StorageUnavailable: for `timeout_s` no call has ended.
        Exception: what a call raised first.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Result | None, BaseException | None]] = queue.SimpleQueue()
    for number in range(len(items)):
        todo.put(number)
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            try:
                number = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((number, function(items[number]), None))
            except BaseException as error:
                done.put((number, None, error))

    for _ in range(min(threads, len(items))):
        threading.Thread(target=work, daemon=True).start()
    results: dict[int, Result | None] = {}
    try:
        while len(results) < len(items):
            number, result, error = done.get(timeout=timeout_s)
            if error is not None:
                raise error
            results[number] = result
    except queue.Empty:
        missing = next(number for number in range(len(items)) if number not in results)
        raise StorageUnavailable(
            f"{items[missing]} was not read within {timeout_s:g} s\n"
            "Check the file system, or raise data.read_timeout_s."
        ) from None
    finally:
        stopped.set()
    return [results[number] for number in range(len(items))]  # pyright: ignore[reportReturnType]
