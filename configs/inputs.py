"""What a command may read: regular files. Opening a FIFO waits for somebody who writes into it, for ever if need be."""

import stat
from collections.abc import Callable
from pathlib import Path

from configs.errors import UserError

_OTHER_KINDS: dict[str, Callable[[int], bool]] = {
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


def check_regular(path: Path) -> None:
    """Refuses what is there and is not a regular file, before anybody opens it. Links are followed, and folders
    are left to those who open them. What the shell opens for a command (`<(...)`, /dev/stdin) has its writer.

    Raises:
        UserError: names the path, and what is there.
        OSError: nothing is there, or one may not see what.
    """
    if path.is_relative_to("/dev/fd") or path == Path("/dev/stdin"):
        return
    mode = path.stat().st_mode
    for kind, is_one in _OTHER_KINDS.items():
        if is_one(mode):
            raise UserError(
                f"{path} is {kind}, not a file\nGive a file; what comes through a pipe, write into one first."
            )
