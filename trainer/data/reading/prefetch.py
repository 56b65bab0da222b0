"""Threads that decode row groups and gather batches ahead of their use, in the order of need, within a byte budget.

pyarrow and NumPy release the GIL while they work, so that threads suffice. What to read is in
`chunks`; a row group is read by `decode`, a chunk gathered by `assemble`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from trainer.data.columns.block import Block
from trainer.data.reading.assemble import Batches
from trainer.data.reading.chunks import Chunk

_TICK_S = 0.5  # how often a waiting consumer looks for reads that hang

_STOP_S = 10.0  # how long `close` waits for what threads are reading


@dataclass(eq=False)
class _Slot:
    """A row group on its way: waiting (attempt 0), being read, or there."""

    row_group: int
    uses: int = 0
    attempt: int = 0
    started: float = 0.0
    bytes: int = 0
    block: Block | None = None
    thread: threading.Thread | None = None


@dataclass(eq=False)
class _Job:
    """A chunk on its way: its row groups are read, then its batches are assembled."""

    chunk: Chunk
    slots: list[_Slot]
    is_assembling: bool = False
    batches: Batches | None = None


class Prefetcher:
    """Iterates over the assembled `chunks` in order. Close it, or its threads go on until its budget is full.

    Args:
        chunks: what to read.
        load: reads a row group; given a function to call before every further try, so that each is timed alone.
        give_up: called with a row group that could not be read twice in time; a block in its place, or an exception.
        assemble: gathers a chunk from its row groups' blocks.
        estimate: bytes that a row group will take.
        threads: that load and gather.
        budget: bytes of blocks and batches; only what the next chunk needs may go beyond.
        timeout_s: of one read.
        on_wait: called now and then while the consumer waits.

    Attributes:
        wait_seconds: how long the consumer has waited.
    """

    def __init__(
        self,
        chunks: Iterator[Chunk],
        load: Callable[[int, Callable[[], None]], Block],
        give_up: Callable[[int, float], Block],
        assemble: Callable[[Chunk, Callable[[int], Block]], Batches],
        estimate: Callable[[int], int],
        threads: int,
        budget: int,
        timeout_s: float,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.wait_seconds = 0.0
        self._on_wait = on_wait
        self._chunks, self._load, self._give_up, self._assemble = chunks, load, give_up, assemble
        self._estimate, self._budget, self._timeout_s = estimate, budget, timeout_s
        self._condition = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._queue: deque[_Slot] = deque()
        self._slots: dict[int, _Slot] = {}
        self._bytes = self._given = 0
        self._exhausted = self._closed = False
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        for _ in range(threads):
            self._start_thread()

    def __iter__(self) -> Prefetcher:
        return self

    def __next__(self) -> Batches:
        """The next chunk's batches. Raises what a thread raised, as soon as it has."""
        start = time.perf_counter()
        with self._condition:
            self._bytes -= self._given  # the chunk before is used up by now
            self._given = 0
            self._condition.notify_all()
            while not self._is_ready():
                self._condition.wait(min(_TICK_S, self._timeout_s / 4))
                self._look_for_hung_reads()
                self._on_wait()
            self.wait_seconds += time.perf_counter() - start
            if self._error is not None:
                raise self._error
            if not self._jobs:
                raise StopIteration
            batches = self._jobs.popleft().batches
            assert batches is not None
            self._given = batches.nbytes
            return batches

    def close(self) -> None:
        """Stops the threads; waits for what they are doing, unless that hangs."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        deadline = time.monotonic() + _STOP_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _is_ready(self) -> bool:
        if self._error is not None or (self._exhausted and not self._jobs):
            return True
        assert not self._closed, "a closed reader was asked for a batch"
        return bool(self._jobs) and self._jobs[0].batches is not None

    def _start_thread(self) -> None:
        """Starts a thread whose torch operators do not start threads of their own."""
        torch_threads, ready = torch.get_num_threads(), threading.Event()

        def work() -> None:
            torch.set_num_threads(1)  # of this thread, and the default of threads to come
            ready.set()
            self._work()

        thread = threading.Thread(target=work, name="reader", daemon=True)
        self._threads.append(thread)
        thread.start()
        ready.wait()
        torch.set_num_threads(torch_threads)  # so that the default is what it was

    def _work(self) -> None:
        go_on = True
        while go_on:
            with self._condition:
                try:
                    task = self._next_task()
                    while task is None and not self._closed:
                        self._condition.wait()
                        task = self._next_task()
                except BaseException as error:
                    self._fail(error)
                    return
            if task is None:
                return
            try:
                go_on = task()
            except BaseException as error:
                with self._condition:
                    self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._closed = True
        self._condition.notify_all()

    def _next_task(self) -> Callable[[], bool] | None:
        """What a free thread does next: assemble the first chunk that is complete, else read what is needed first."""
        while not self._closed:
            for job in self._jobs:
                fits = job is self._jobs[0] or self._bytes < self._budget
                if fits and not job.is_assembling and all(slot.block is not None for slot in job.slots):
                    job.is_assembling = True
                    return lambda job=job: self._gather(job)
            if self._queue:
                return self._read_task()
            if (self._bytes >= self._budget and self._jobs) or not self._take_chunk():
                return None
        return None

    def _read_task(self) -> Callable[[], bool] | None:
        slot = self._queue[0]
        size = self._estimate(slot.row_group)
        if self._bytes + size > self._budget and slot not in self._jobs[0].slots:
            return None
        self._queue.popleft()
        slot.attempt += 1
        slot.started, slot.bytes, slot.thread = time.monotonic(), size, threading.current_thread()
        self._bytes += size
        attempt = slot.attempt
        return lambda: self._read(slot, attempt)

    def _take_chunk(self) -> bool:
        chunk = None if self._exhausted else next(self._chunks, None)
        if chunk is None:
            self._exhausted = True
            self._condition.notify_all()
            return False
        slots = []
        for row_group in chunk.row_groups:
            if row_group not in self._slots:
                self._slots[row_group] = _Slot(row_group)
                self._queue.append(self._slots[row_group])
            slots.append(self._slots[row_group])
            slots[-1].uses += 1
        self._jobs.append(_Job(chunk, slots))
        return True

    def _read(self, slot: _Slot, attempt: int) -> bool:
        def again() -> None:
            with self._condition:
                if slot.attempt == attempt:
                    slot.started = time.monotonic()

        try:
            block = self._load(slot.row_group, again)
        except BaseException:
            if slot.attempt != attempt or slot.block is not None:
                return False
            raise
        with self._condition:
            if slot.attempt != attempt or slot.block is not None:
                return False  # given up meanwhile: another thread took this one's place
            self._put(slot, block)
        return True

    def _put(self, slot: _Slot, block: Block) -> None:
        self._bytes += block.nbytes - slot.bytes
        slot.bytes, slot.block = block.nbytes, block
        self._condition.notify_all()

    def _gather(self, job: _Job) -> bool:
        blocks = {slot.row_group: slot.block for slot in job.slots}
        batches = self._assemble(job.chunk, blocks.__getitem__)  # pyright: ignore[reportArgumentType]
        with self._condition:
            if job is self._jobs[-1]:
                self._take_chunk()  # so that a row group that the next chunk needs too is kept
            job.batches = batches
            self._bytes += batches.nbytes
            for slot in job.slots:
                slot.uses -= 1
                if not slot.uses:
                    del self._slots[slot.row_group]
                    self._bytes -= slot.bytes
            job.slots = []
            self._condition.notify_all()
        return True

    def _look_for_hung_reads(self) -> None:
        now = time.monotonic()
        for slot in list(self._slots.values()):
            if slot.block is None and slot.attempt and slot not in self._queue and now - slot.started > self._timeout_s:
                assert slot.thread is not None
                self._threads.remove(slot.thread)  # nobody waits for it any more
                self._start_thread()
                if slot.attempt == 1:
                    self._bytes -= slot.bytes
                    self._queue.appendleft(slot)
                else:
                    self._put(slot, self._give_up(slot.row_group, self._timeout_s))
                self._condition.notify_all()
