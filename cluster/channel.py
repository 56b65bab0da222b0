"""Between the workers and the driver: lines for the screen, the result, a mistake that no restart can fix, a stop.

An actor, since workers and driver may be on different machines and Ray's own forwarding prefixes every line.
"""

import threading
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError


# `take` waits while others speak; one thread for all who speak keeps a worker's lines in order.
@ray.remote(num_cpus=0, concurrency_groups={"listening": 1})  # pyright: ignore[reportCallIssue] - ray's overloads miss it
class Channel:
    """Holds what workers say until the driver takes it, and what the driver asks of them."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._lines: list[str] = []
        self._mistake: str | None = None
        self._result: Any = None
        self._stops = False
        self._hosts: dict[int, str] = {}

    def join(self, rank: int, host: str) -> None:
        self._hosts[rank] = host

    def hosts(self) -> dict[int, str]:
        """Rank -> where it runs, or ran last."""
        return self._hosts

    def say(self, line: str) -> None:
        with self._arrived:
            self._lines.append(line)
            self._arrived.notify()

    @ray.method(concurrency_group="listening")
    def take(self, timeout_s: float) -> list[str]:
        """Lines said since the last call; waits up to `timeout_s` for one."""
        with self._arrived:
            if not self._lines:
                self._arrived.wait(timeout_s)
            lines, self._lines = self._lines, []
            return lines

    def report_mistake(self, message: str) -> None:
        with self._arrived:
            self._mistake = self._mistake or message

    def mistake(self) -> str | None:
        return self._mistake

    def ask_to_stop(self) -> None:
        self._stops = True

    def stops(self) -> bool:
        return self._stops

    def finish(self, result: Any) -> None:
        self._result = result

    def result(self) -> Any:
        return self._result


class Listener:
    """Prints on the driver what workers say, until closed."""

    def __init__(self, channel: Any, show: Callable[[str], None]) -> None:
        self._channel = channel
        self._show = show
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._closing.is_set():
            self._show_lines(0.5)

    def _show_lines(self, timeout_s: float) -> None:
        try:
            lines = ray.get(self._channel.take.remote(timeout_s))
        except (RayError, RuntimeError):  # Ray was shut down while waiting: nothing more will come
            self._closing.set()
            return
        for line in lines:
            self._show(line)

    def close(self) -> None:
        """Shows what was said by now; a second time, nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        self._show_lines(0)
