"""Runs a long call that Ctrl-C, SIGTERM and SIGHUP end gently the first time, and at once the second time.

`ray job stop`, schedulers that take a machine back, and people send these signals to the driver. What a gentle end is,
the caller says.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last comes when a terminal is closed
_TICK_S = 0.2  # how often the main thread looks up; Python runs signal handlers there


def call_until_stopped(call: Callable[[], Any], ask_to_stop: Callable[[], None]) -> None:
    """Calls `call` in a thread of its own and waits for its end, which `ask_to_stop` should bring about.

    In the main thread libraries would put handlers of their own in the place of ours (Ray's kills the workers).

    Raises:
        KeyboardInterrupt: the signal came a second time; the call may still be running.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="launched", daemon=True)
    with _counted_signals() as signals:
        thread.start()
        asked = False
        while thread.is_alive():
            thread.join(_TICK_S)
            if len(signals) > 1:
                raise KeyboardInterrupt
            if signals and not asked:
                asked = True
                ask_to_stop()
    if raised:
        raise raised[0]


@contextmanager
def _counted_signals() -> Iterator[list[int]]:
    """The signals that have come since; outside of the main thread, which alone gets them, none."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    ignores_closing = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # under nohup
    handled = [number for number in _STOPPING if number != signal.SIGHUP or not ignores_closing]
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in handled}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
