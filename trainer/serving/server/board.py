"""Memory that the parent and all its processes share: what is served, who has taken it over, and what was counted.

An anonymous file, mapped by everyone; it is gone with the last of them. A process writes its own counters alone, so
none of them needs a lock, and whoever is asked for metrics adds up all of them. What is served is written under one.
"""

import fcntl
import json
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

STAGES = ("wait", "parse", "transform", "score", "answer", "request")
"""Of a request: until its batch begins; bytes to columns; columns to IDs; tables and top; the answer; all of it."""
EDGES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper edges of the histograms of seconds; what takes longer is above the last."""
ROW_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
MOST_FEATURES = 512
"""Of a model whose values are counted; those beyond are not."""
FEATURE_COUNTS = 5
_STATE_BYTES = 1 << 18
_EDGES_NS = tuple(int(edge * 1e9) for edge in EDGES_S)


@dataclass
class Totals:
    """Counters of one model, of one process or of all."""

    requests: int = 0
    failed: int = 0
    turned_away: int = 0
    expired: int = 0
    rows: int = 0
    batches: int = 0
    last_ms: int = 0
    request_ns: int = 0
    failed_ns: int = 0
    wait_ns: int = 0
    parse_ns: int = 0
    transform_ns: int = 0
    score_ns: int = 0
    answer_ns: int = 0
    logged: int = 0
    log_dropped: int = 0
    log_unwritten: int = 0


PLACES = {field.name: place for place, field in enumerate(fields(Totals))}
_STAGES_AT = len(PLACES)
_ROWS_AT = _STAGES_AT + len(STAGES) * (len(EDGES_S) + 1)
_FEATURES_AT = _ROWS_AT + len(ROW_EDGES) + 1
_SLOTS = _FEATURES_AT + MOST_FEATURES * FEATURE_COUNTS


class Counters:
    """Those of one model in one process."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def add(self, name: str, value: int = 1) -> None:
        """Adds to the counter `name` of `Totals`."""
        self._view[PLACES[name]] += value

    def put(self, name: str, value: int) -> None:
        """Sets the counter `name`."""
        self._view[PLACES[name]] = value

    def took(self, stage: int, ns: int, times: int = 1) -> None:
        """Counts a duration of a stage, by its place in STAGES, for `times` requests."""
        place = _STAGES_AT + stage * (len(EDGES_S) + 1) + bisect_left(_EDGES_NS, ns)
        self._view[place] += times

    def scored(self, rows: int) -> None:
        """Counts a batch."""
        self._view[_ROWS_AT + bisect_left(ROW_EDGES, rows)] += 1

    @property
    def values(self) -> list[int]:
        """All but those of features."""
        return self._view[:_FEATURES_AT].tolist()

    @property
    def of_features(self) -> memoryview:
        """FEATURE_COUNTS for each of MOST_FEATURES, one after the other."""
        return self._view[_FEATURES_AT:]


class Board:
    """The shared memory.

    Args:
        fd: of an anonymous file that `create` made.
        processes, models: how many there are of each.
    """

    def __init__(self, fd: int, processes: int, models: int) -> None:
        self.fd, self.processes, self.models = fd, processes, models
        self._memory = mmap.mmap(fd, _size(processes, models))
        self._numbers = memoryview(self._memory).cast("q")
        self._applied_at = _STATE_BYTES // 8

    @staticmethod
    def create(processes: int, models: int) -> "Board":
        """A new one, with no state."""
        fd = os.memfd_create("multigate", 0)
        os.ftruncate(fd, _size(processes, models))
        return Board(fd, processes, models)

    @property
    def generation(self) -> int:
        """Grows with each state that is written."""
        return self._numbers[0]

    def read(self) -> tuple[int, Any]:
        """The generation and the state."""
        with self._locked():
            length = self._numbers[1]
            return self._numbers[0], json.loads(self._memory[16 : 16 + length]) if length else None

    def write(self, state: Any) -> int:
        """Writes a state for all processes; returns its generation. See `changing` for one that depends on the last."""
        with self._locked():
            return self._write(state)

    @contextmanager
    def changing(self) -> Iterator[Any]:
        """Gives the state, to be changed in place: nobody else writes meanwhile. Unchanged, it is no new generation."""
        with self._locked():
            before = self._memory[16 : 16 + self._numbers[1]]
            state = json.loads(before)
            yield state
            if state != json.loads(before):
                self._write(state)

    def _write(self, state: Any) -> int:
        text = json.dumps(state).encode()
        assert len(text) <= _STATE_BYTES - 16, len(text)
        self._memory[16 : 16 + len(text)] = text
        self._numbers[1] = len(text)
        self._numbers[0] += 1
        return self._numbers[0]

    def apply(self, process: int, generation: int) -> None:
        """Says that a process serves a state; -1: it serves nothing."""
        self._numbers[self._applied_at + process] = generation

    @property
    def applied(self) -> list[int]:
        """The generation that each process serves; -1 for one that does not run."""
        return self._numbers[self._applied_at : self._applied_at + self.processes].tolist()

    def counters(self, process: int, model: int) -> Counters:
        """The counters of a model in a process."""
        start = self._applied_at + self.processes + (process * self.models + model) * _SLOTS
        return Counters(self._numbers[start : start + _SLOTS])

    def totals(self, model: int) -> tuple[Totals, list[list[int]], list[int]]:
        """Of all processes: counters, one histogram per stage, the histogram of rows per batch."""
        columns = zip(*(self.counters(process, model).values for process in range(self.processes)), strict=True)
        each = list(columns)
        sums = [sum(column) for column in each]
        totals = Totals(*sums[:_STAGES_AT])
        totals.last_ms = max(each[PLACES["last_ms"]])
        width = len(EDGES_S) + 1
        stages = [sums[_STAGES_AT + i * width : _STAGES_AT + (i + 1) * width] for i in range(len(STAGES))]
        return totals, stages, sums[_ROWS_AT:]

    def feature_totals(self, model: int) -> list[int]:
        """`Counters.of_features`, of all processes."""
        each = (self.counters(process, model).of_features.tolist() for process in range(self.processes))
        return [sum(column) for column in zip(*each, strict=True)]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with os.fdopen(os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR), "rb+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # of an open file of its own: threads of one process exclude each other
            yield


def _size(processes: int, models: int) -> int:
    return _STATE_BYTES + 8 * (processes + processes * models * _SLOTS)
