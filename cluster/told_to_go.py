"""An agent's process is told to end (SIGTERM): its host is about to go, so the function gets a time in which to save.

Ray would end the process at once, and with it all that was not saved.
"""

import os
import signal
import threading

_GRACE_S = 30.0  # what Kubernetes gives, too

_told = threading.Event()


def listen() -> None:
    """From now on a SIGTERM is noted. To be called in the main thread, where Python runs signal handlers."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _note)


def is_told() -> bool:
    return _told.is_set()


def _note(*_: object) -> None:
    if not _told.is_set():
        _told.set()
        timer = threading.Timer(_GRACE_S, os._exit, [1])
        timer.daemon = True
        timer.start()
