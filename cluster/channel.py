"""Between driver and agents: lines for the screen, the result, stops, and the meeting in which attempts begin and end.

An actor, since agents and driver may be on different machines and Ray's own forwarding prefixes every line.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.clues import Clues, failure_lines, saved
from cluster.meeting import Call, Cause, Limits, Meeting, Report, Verdict

_LOOK_S = 0.25
_GATHER_S = 120.0  # from the first agent that is ready to the last; they are started, or end a process, together


@ray.remote(num_cpus=0)
class Channel:
    """Holds what workers say until the driver takes it, what the driver asks of them, and their meeting.

    Its methods run in one thread; those that wait let others go on.
    """

    def __init__(self, clues: Clues, limits: Limits) -> None:
        self._arrived = asyncio.Event()
        self._lines: list[str] = []
        self._moved = asyncio.Event()  # a new one for each thing that happens
        self._looking: asyncio.Task[None] | None = None
        self._meeting = Meeting(
            limits, lambda: saved(clues), self._say, lambda causes, hosts: failure_lines(causes, hosts, clues)
        )

    # Lines.

    async def say(self, line: str) -> None:
        self._say(line)

    def _say(self, line: str) -> None:
        self._lines.append(line)
        self._arrived.set()

    async def take(self, timeout_s: float) -> list[str]:
        """Lines said since the last call; waits up to `timeout_s` for one."""
        if not self._lines:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), timeout_s)
            except TimeoutError:
                return []
        lines, self._lines = self._lines, []
        return lines

    # The driver's side.

    async def ask_to_stop(self) -> None:
        self._meeting.stops = True

    async def outcome(self) -> tuple[str | None, str | None, Any]:
        """The user's mistake, why the launch was given up, and the result."""
        return self._meeting.mistake, self._meeting.given_up, self._meeting.result

    async def begin_group(self, size: int) -> int:
        self._looking = self._looking or asyncio.create_task(self._look())
        group = self._meeting.begin_group(size)
        self._move()
        return group

    async def lose(self, causes: Mapping[int, Cause]) -> bool:
        """Ray found agents dead; whether the launch goes on."""
        self._meeting.fail(self._meeting.group, causes, time.time())
        self._meeting.settle(time.time())
        self._move()
        return not self._meeting.is_over

    async def fail_to_start(self, cause: Cause) -> bool:
        """Ray could not start new agents; whether the launch goes on."""
        self._meeting.fail_to_start(cause, time.time())
        self._meeting.settle(time.time())
        return not self._meeting.is_over

    async def leave(self, why: str) -> None:
        """Has the function save and return; Ray then places the group anew."""
        if not self._meeting.leaving:
            self._meeting.leaving = why
            self._say(why)

    # The agents' side.

    async def arrive(self, group: int, rank: int, host: str, address: str) -> Call | None:
        """Waits for the other agents of the group; the next attempt, or None where there is none any more.

        Raises:
            TimeoutError: some did not come. Ray then ends them all, and starts a new group.
        """
        meeting = self._meeting
        meeting.arrive(group, rank, host, address, time.monotonic(), time.time())
        self._move()
        end = time.monotonic() + _GATHER_S
        while group == meeting.group and not meeting.is_over:
            if meeting.has_begun(rank):
                return meeting.call()
            if time.monotonic() > end:
                missing = ", ".join(map(str, meeting.missing()))
                raise TimeoutError(f"no agent of rank {missing} came within {_GATHER_S:.0f} s")
            await self._next(end)
        return None

    async def verdict(self, group: int, attempt: int) -> tuple[Verdict, bool]:
        """Waits until the attempt ends; how, and whether for want of steps."""
        meeting = self._meeting
        while (group, attempt) == (meeting.group, meeting.attempt):
            if meeting.verdict is not Verdict.GO_ON:
                return meeting.verdict, meeting.hangs
            await self._moved.wait()
        return Verdict.AGAIN, False

    async def hear(self, group: int, rank: int, report: Report) -> bool:
        """What an agent says of its process; whether the function is asked to stop."""
        self._meeting.hear(group, rank, report, time.monotonic())
        return self._meeting.stops or bool(self._meeting.leaving)

    async def done(self, group: int, rank: int, result: Any) -> None:
        self._meeting.done(group, rank, result)
        self._move()

    async def err(self, message: str) -> None:
        self._meeting.err(message)
        self._move()

    async def fail(self, group: int, rank: int, cause: Cause, report: Report) -> None:
        self._meeting.hear(group, rank, report, time.monotonic())
        self._meeting.fail(group, {rank: cause}, time.time())
        self._move()

    async def _next(self, end: float) -> None:
        """Waits for the next thing to happen, but not beyond `end`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._moved.wait(), max(0.0, end - time.monotonic()))

    def _move(self) -> None:
        """Wakes all that wait for something to happen."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            before = self._meeting.verdict
            self._meeting.look(time.monotonic(), time.time())
            if self._meeting.verdict is not before:
                self._move()


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
