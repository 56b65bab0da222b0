"""Tells a storage that does not answer from a file that is wrong, and asks the storage again.

The one passes: the reader waits a while, then the worker group starts again from its checkpoint. The other is for the
user, or for `trainer.data.reading.quarantine`.
"""

from __future__ import annotations

import errno
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from configs.errors import TryAgain, UserError

Result = TypeVar("Result")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("ETIMEDOUT", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EPIPE", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "ENOTCONN", "ESHUTDOWN", "EREMOTEIO", "ENOBUFS"),
        *("ESTALE", "EIO", "EAGAIN", "EBUSY", "EINTR"),
    )
    if hasattr(errno, name)
)
# pyarrow gives an object store's answer as text alone: AWS' error names or HTTP status, curl's, Google's status.
_PASSING_TEXT = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT|THROTTLING)"
    r"|HTTP status (5\d\d|429|408)\b|curlCode|Status\((UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL)"
)


class DataError(UserError):
    """A file that cannot be read as the manifest says. The first line names the file."""


class StorageUnavailable(TryAgain):
    """A storage did not answer for as long as data.read_timeout_s allows. The first line names the file."""


def unreadable(what: str, error: Exception, remedy: str) -> DataError | StorageUnavailable:
    """What to raise when reading `what` failed with `error`. remedy: what to do about a file that is wrong."""
    why = f"{what} cannot be read: {first_line(error)}"
    if is_temporary(error):
        return StorageUnavailable(f"{why}\nThe storage does not answer. Check its address and the network.")
    return DataError(f"{why}\n{remedy}")


def is_temporary(error: Exception) -> bool:
    """Whether the storage or the way there failed, and the same read may succeed later."""
    if isinstance(error, TimeoutError | ConnectionError) or getattr(error, "errno", None) in _PASSING:
        return True
    return isinstance(error, OSError) and bool(_PASSING_TEXT.search(str(error)))


def until_answered(call: Callable[[], Result], seconds: float, again: Callable[[], None] = lambda: None) -> Result:
    """`call()`; while it raises StorageUnavailable again with growing pauses, for `seconds` after the first time.

    Args:
        again: called before every further try.
    """
    try:
        return call()
    except StorageUnavailable:
        deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE_S
    while True:
        time.sleep(min(pause, seconds / 4) * random.uniform(0.5, 1))
        pause = min(2 * pause, _LONGEST_PAUSE_S)
        again()
        try:
            return call()
        except StorageUnavailable:
            if time.monotonic() + pause > deadline:
                raise


def first_line(error: BaseException) -> str:
    """What an exception says, without what follows in further lines."""
    return (str(error).splitlines() or [type(error).__name__])[0]
