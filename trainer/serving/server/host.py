"""What the routes of both protocols work with in one process: models, batcher, settings, and counting requests."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from configs.errors import UserError
from configs.serve_config import ServeConfig
from trainer.serving.server.batcher import Batcher
from trainer.serving.server.board import Board, Totals
from trainer.serving.server.models import Models, UnloadableError, Version
from trainer.serving.server.refusals import RefusedError
from trainer.serving.server.request_log import RequestLog
from trainer.serving.server.state import refusal, request_load, request_unload, settle, withdraw

log = logging.getLogger(__name__)
_LOOK_S = 0.05  # between two looks at what is to be served
_CHANGE_S = 120.0


class Request:
    """The times of one request."""

    def __init__(self, host_version: Version, begin: int) -> None:
        self._counters, self._begin = host_version.counters, begin
        self._mark = begin

    def parsed(self) -> None:
        """Its columns are known."""
        self._mark = self._stage("parse_ns", 1, self._begin)

    def scored(self) -> None:
        """Its predictions are known."""
        self._mark = time.perf_counter_ns()

    def answered(self) -> None:
        """Its body is made."""
        now = self._stage("answer_ns", 4, self._mark)
        self._counters.add("requests")
        self._counters.add("request_ns", now - self._begin)
        self._counters.took(5, now - self._begin)
        self._counters.put("last_ms", time.time_ns() // 1_000_000)

    def failed(self) -> None:
        """It was refused, or the server failed."""
        self._counters.add("failed")
        self._counters.add("failed_ns", time.perf_counter_ns() - self._begin)

    def _stage(self, name: str, stage: int, begin: int) -> int:
        now = time.perf_counter_ns()
        self._counters.add(name, now - begin)
        self._counters.took(stage, now - begin)
        return now


class Host:
    """One process. is_ready: it takes requests; false while it stops."""

    def __init__(self, settings: ServeConfig, board: Board, process: int, token: str | None = None) -> None:
        self.settings, self.board, self.process, self.token = settings, board, process, token
        self.log = RequestLog(settings, process) if settings.request_log else None
        self.models, self.batcher = Models(board, process, self.log), Batcher(settings)
        self.is_ready = False
        self.version = _version()

    @contextmanager
    def counted(self, version: Version, begin: int) -> Iterator[Request]:
        """Counts what happens to a request that is for a model."""
        request = Request(version, begin)
        try:
            yield request
        except BaseException:
            request.failed()
            raise
        request.answered()

    def totals(self, name: str) -> tuple[Totals, list[list[int]], list[int]]:
        """The counters of a model, of all processes."""
        return self.board.totals(self.models.slot(name))

    def begin(self, verify: bool) -> None:
        """Loads what the board says. UserError: it cannot be loaded, and nothing was served before it."""
        for name in self.board.read()[1]:
            if (number := settle(self.board, name)) is not None:
                log.warning(
                    "model %s: its bundle is gone from the disk; version %s is there and is served", name, number
                )
        while True:
            try:
                self.models.take(self.models.load(verify))
                return
            except UnloadableError as error:
                if not self._withdraw(error):
                    raise UserError(error.why) from error

    async def follow(self, verify: bool) -> None:
        """Takes over what the board says, whenever it says something new. What cannot be loaded is not served by any
        process: all go on with what was served before it."""
        while True:
            await asyncio.sleep(_LOOK_S)
            generation = self.board.generation
            if generation == self.models.generation:
                continue
            try:
                self.models.take(await asyncio.to_thread(self.models.load, verify))
            except UnloadableError as error:
                if not self._withdraw(error) and self.board.generation == generation:
                    log.error("model %s, version %s, is kept as it is here: %s", error.name, error.version, error.why)
                    self.models.keep(generation)

    def _withdraw(self, error: UnloadableError) -> bool:
        is_news = withdraw(self.board, error.name, error.version, error.digest, error.why)
        if is_news:
            log.error("model %s stays as it is: version %s: %s", error.name, error.version, error.why)
        return is_news

    async def change(self, name: str, version: str | None, is_load: bool) -> None:
        """Loads or unloads a model in all processes.

        Raises:
            RefusedError: settings forbid it, a process does not follow, or the bundle cannot be loaded.
        """
        if not self.settings.repository_control:
            raise RefusedError(400, "models are not loaded by requests here\nSet serve.repository_control=true.")
        if is_load:
            generation = await asyncio.to_thread(request_load, self.board, name, version)
        else:
            generation = await asyncio.to_thread(request_unload, self.board, name)
        deadline = time.monotonic() + _CHANGE_S
        while any(0 <= applied < generation for applied in self.board.applied):
            if time.monotonic() > deadline:
                raise RefusedError(503, f"not every process serves it after {_CHANGE_S:g} s", 1)
            await asyncio.sleep(_LOOK_S / 2)
        if is_load and (why := refusal(self.board, name)) is not None:
            raise RefusedError(400, f"model {name!r} stays as it is: {why}")


def _version() -> str:
    try:
        return version("multigate")
    except PackageNotFoundError:
        return "0"
