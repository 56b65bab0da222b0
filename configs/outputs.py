"""Where a command may write: one rule for all that do.

What this product did not write is never replaced or deleted; what it did write, only by the flag that says so.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from configs.errors import UserError

_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)


def check_output(
    path: str | Path,
    argument: str,
    kind: Literal["file", "folder"],
    *,
    is_own: Callable[[Path], bool] = lambda path: False,
    overwrite: bool | None = None,
) -> None:
    """Refuses a place for a command's result that is taken, or that cannot be written to. Touches nothing.

    Nothing there is fine, and so is an empty folder for a folder.

    Args:
        argument: what the user gave the path with, such as "--out".
        is_own: whether this product wrote what is there, as such a result.
        overwrite: whether --overwrite was given; None for a command without it.

    Raises:
        UserError: names the path, and what is in the way.
    """
    path = Path(path)
    try:
        blocked = _unwritable(path) or _of_other_kind(path, kind)
        taken = _is_there(path) and not (path.is_dir() and not any(path.iterdir()))
    except OSError as error:  # such as a name that is too long
        blocked, taken = f"cannot be written: {error.strerror}", False
    remedy = f"give {argument} another name"
    if blocked:
        raise UserError(f"{path} {blocked}\n{remedy}")
    if taken and (overwrite is None or not is_own(path)):
        raise UserError(f"{path} is there already\n{remedy}")
    if taken and not overwrite:
        raise UserError(f"{path} is there already\n--overwrite replaces it, or {remedy}")


def make_folder(path: str | Path, argument: str, result: str | Path | None = None) -> None:
    """Makes a folder for a command's result, and those above it; one that is there is fine.

    `check_output` touches nothing, so it cannot know of a file system that takes no folders.

    Args:
        result: what the user asked for, where the folder is a draft of it, or around it.

    Raises:
        UserError: the folder cannot be made.
        OSError: the disk is full or fails, which may pass.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in _MAY_PASS:
            raise
        why = f"{result or path} cannot be written: {error.strerror}: {error.filename}"
        raise UserError(f"{why}\ngive {argument} another name") from error


def check_lasts(path: str | Path, argument: str) -> None:
    """Refuses a place where a result would be lost: a URL, of which `Path` would make local folders named s3: and so
    on; an empty path; and the copy of its folder that Ray makes for a submitted job, and deletes after it.

    Raises:
        UserError: names the path.
    """
    if not str(path):
        raise UserError(f"{argument} is empty\ngive a path")
    if "://" in str(path):
        raise UserError(
            f"{path} is an address, not a path\ngive {argument} as a path, and copy what is there afterwards"
        )
    if "working_dir_files" in Path(path).expanduser().absolute().parts:
        raise UserError(
            f"{path} lies in the copy of a folder that a submitted job runs in, and Ray deletes that copy\n"
            f"give {argument} as an absolute path, or from the home folder: ~/..."
        )


def _unwritable(path: Path) -> str | None:
    place = path.absolute()
    around = (place, *place.parents) if place.is_dir() else place.parents
    nearest = next(folder for folder in around if _is_there(folder))
    if not nearest.is_dir():
        return f"cannot be written: {nearest} is not a folder"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"cannot be written: {nearest} is read-only, or not yours"
    return None


def _of_other_kind(path: Path, kind: Literal["file", "folder"]) -> str | None:
    if not _is_there(path) or path.is_dir() == (kind == "folder"):
        return None
    return f"is there already, {'a file' if kind == 'folder' else 'a folder'}"


def _is_there(path: Path) -> bool:
    """Also a link to nothing. Raises OSError where there can be none."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
