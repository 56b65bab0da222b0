"""The manifests of a run, in its manifest.json: which files each part of the data has, fixed at the first start."""

import fcntl

from configs.errors import UserError
from trainer.data.dataset.manifest import Manifest
from trainer.run.lock import suppress_missing_locks
from trainer.run.run_directory import RunDirectory, read_json, write_json


def read_manifest(run: RunDirectory, part: str) -> Manifest | None:
    """The manifest of `part`; None if the run has not used it.

    Raises:
        UserError: manifest.json is damaged.
    """
    content = _read(run).get(part)
    if content is None:
        return None
    try:
        return Manifest.from_json(content)
    except (AssertionError, KeyError, TypeError) as error:
        raise UserError(
            f"{run.manifest} is not as a run writes it: {error}\n"
            "restore that file, or start the run again with --overwrite"
        ) from None


def keep_manifest(run: RunDirectory, part: str, manifest: Manifest) -> None:
    """Fixes the files of `part` for the whole life of the run. An evaluation may do it beside a run that trains."""
    with run.manifest_lock.open("w") as lock:
        with suppress_missing_locks():
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        write_json(run.manifest, _read(run) | {part: manifest.to_json()})


def _read(run: RunDirectory) -> dict:
    found = read_json(run.manifest)
    return found if isinstance(found, dict) else {}
