"""What Ray Train starts for each rank: it has a process call the function, watches it, and begins anew with the others.

It imports no torch and computes nothing, so it answers at once whatever the function does. What follows from what
agents see is decided in the meeting, an actor beside the driver; here it is only carried out.
"""

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import ray

from cluster import told_to_go
from cluster.calling import Order, Place
from cluster.meeting import Call, Cause, Report, Verdict
from cluster.slot import Slot, StandbyError, tell

_LOOK_S = 0.1  # between two looks at the verdict; what a process says is heard at once
_REPORT_S = 1.0
_CUT_OFF_S = 30.0  # without an answer of the meeting: others go on without this host by then
_DUMPS_S = 5.0  # to write down what its threads are doing
_ENDS_S = 30.0  # from SIGKILL to the end of a process, which gives back its memory first
_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.*)$', re.MULTILINE)


class LeavingError(Exception):
    """The processes have saved and ended, and Ray is to place the group anew. No failure."""


@dataclass(frozen=True)
class Task:
    """What the function is, and what a process needs for it."""

    launch: str
    """Names the launch."""
    payload: bytes
    """The function and its argument, pickled."""
    modules: Sequence[str]
    timeout_s: int
    """Of a collective."""
    log_of: Callable[[int], str]
    """Rank -> its log file."""


def follow(task: Task, place: Place, channel: Any, new_address: Any) -> None:
    """Has the function called until the launch is over.

    new_address: () -> HOST:PORT on this host, where ranks can meet if this one is the first.

    Raises:
        LeavingError: the group goes on elsewhere.
    """
    slot = Slot(task.launch, place.host, place.local_rank, task.modules)
    slot.prepare()
    while True:
        call: Call | None = ray.get(channel.arrive.remote(place.group, place.rank, place.host, new_address()))
        verdict = Verdict.OVER if call is None else _Attempt(task, place, channel, slot, call).follow()
        if verdict is Verdict.LEAVE:
            raise LeavingError
        if verdict is Verdict.OVER:
            slot.leave()
            return


class _Attempt:
    """One life of the process that calls the function."""

    def __init__(self, task: Task, place: Place, channel: Any, slot: Slot, call: Call) -> None:
        self._task, self._place, self._channel, self._slot, self._call = task, place, channel, slot, call
        path, self._board = slot.new_board()
        self._order = Order(task.payload, place, call.address, task.timeout_s, call.faults, path, slot.stacks)
        self._process: int | None = None
        self._has_ended = self._is_unwanted = False
        self._outcome: tuple[str, Any] | None = None
        self._stopped_since: float | None = None

    def follow(self) -> Verdict:
        """From the order to the verdict; the process has ended then."""
        try:
            self._line, self._control = self._slot.order(self._order)
        except StandbyError as error:
            self._tell_failure(Cause(f"its process did not start: {error}", False))
            self._has_ended = True
        verdict = self._channel.verdict.remote(self._place.group, self._call.attempt)
        is_told = False
        answer: Any = None
        asked = 0.0
        while True:
            self._hear()
            now = time.monotonic()
            if answer is None and now - asked >= _REPORT_S:
                answer, asked = self._channel.hear.remote(self._place.group, self._place.rank, self._report()), now
            if told_to_go.is_told() and not is_told:
                is_told = True
                self._channel.leave.remote(f"{self._place.host} is told to end: the workers save, and go on elsewhere")
            ready, _ = ray.wait([verdict, answer] if answer else [verdict], timeout=0)
            if answer is not None and answer in ready:
                if ray.get(answer):
                    self._board.stop()
                answer = None
            elif verdict in ready:
                told, hangs = ray.get(verdict)
                self._end(hangs=hangs)
                return told
            elif now - asked > _CUT_OFF_S:
                self._end(hangs=False)
                raise RuntimeError("the driver's host does not answer")

    def _hear(self) -> None:
        """Waits for a moment, takes what the process says, and tells its end."""
        if self._has_ended:
            time.sleep(_LOOK_S)
            return
        said = wait([self._line, self._control], _LOOK_S)
        if self._control in said or (self._line in said and not self._read()):
            self._take_end()

    def _read(self) -> bool:
        """Takes what the process has said by now; whether it may say more."""
        try:
            while self._line.poll():
                kind, value = self._line.recv()
                if kind == "line":
                    self._channel.say.remote(value)
                elif kind == "begun":
                    self._process, is_forked = value
                    if not is_forked:
                        self._slot.renew()
                else:
                    self._outcome = (kind, value)
        except (EOFError, OSError):
            return False
        return True

    def _take_end(self) -> None:
        """The process has ended, or is about to."""
        code = _code_from(self._control)
        self._read()
        self._line.close()
        self._has_ended = True
        if code is None:  # the standby is no more, or does not answer
            self._slot.drop(self._control)
        if self._is_unwanted:
            return
        kind, value = self._outcome or ("died", _death(code, self._slot))
        if kind == "done":
            ray.get(self._channel.done.remote(self._place.group, self._place.rank, value))
        elif kind == "mistake":
            ray.get(self._channel.err.remote(value))
        else:
            self._tell_failure(Cause(value, kind == "died"))

    def _tell_failure(self, cause: Cause) -> None:
        ray.get(self._channel.fail.remote(self._place.group, self._place.rank, cause, self._report()))

    def _report(self) -> Report:
        now = time.monotonic()
        if self._has_ended or not _is_stopped(self._process):
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = now
        stopped_s = 0.0 if self._stopped_since is None else now - self._stopped_since
        return Report(self._board.beats, self._board.step, stopped_s)

    def _end(self, *, hangs: bool) -> None:
        """Ends the process, if it has not ended by itself."""
        if not self._has_ended:
            self._hear()  # what ended it may be what ended the attempt
        if self._has_ended:
            return
        if hangs:
            self._tell_failure(self._hang())
        self._is_unwanted = True
        tell(self._control, "kill")
        self._take_end()

    def _hang(self) -> Cause:
        """Where the process is; what all its threads are doing goes into the log of its rank."""
        if self._process is None or _is_stopped(self._process):
            return Cause("its process is stopped", True)
        os.kill(self._process, signal.SIGUSR1)
        end = time.monotonic() + _DUMPS_S
        while not (stacks := self._slot.stacks.read_text(errors="replace")) and time.monotonic() < end:
            time.sleep(_LOOK_S)
        time.sleep(_LOOK_S)  # for the rest of it
        stacks = self._slot.stacks.read_text(errors="replace")
        try:
            with Path(self._task.log_of(self._place.rank)).open("a") as log:
                log.write(f"no step for too long; what the threads are doing:\n{stacks}")
        except OSError:
            pass  # a log that cannot be written is no reason to go on hanging
        return Cause(f"no step for too long: {where_it_hangs(stacks)}", False)


def where_it_hangs(stacks: str) -> str:
    """Where the main thread is, from what faulthandler wrote."""
    _, _, main = stacks.rpartition("Current thread")
    frames = list(_FRAME.finditer(main.partition("\n\n")[0]))
    if not frames:
        return "it does not say where"
    if any("torch/distributed" in frame["file"] for frame in frames[:6]):
        return f"it waits for its peers, in {frames[0]['name']}"
    return f"it is in {frames[0]['name']}, {frames[0]['file']}:{frames[0]['line']}"


def _code_from(control: Connection) -> int | None:
    """The exit code of the process as the standby tells it; None where the standby does not."""
    try:
        return control.recv() if control.poll(_ENDS_S) else None
    except (EOFError, OSError):
        return None


def _death(code: int | None, slot: Slot) -> str:
    if code is None:
        return f"its process has ended, and its standby: {slot.last_words()}"
    if code >= 0:
        return f"its process ended with exit code {code}"
    why = "; the kernel sends it when memory runs out" if code == -signal.SIGKILL else ""
    return f"its process was ended by signal {-code} ({signal.Signals(-code).name}){why}"


def _is_stopped(process: int | None) -> bool:
    """Whether a signal has stopped it; not whether a debugger has."""
    if process is None:
        return False
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] == "T"
