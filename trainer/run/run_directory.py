"""The folder that a run writes to: names of its files, who may use it, and what it leaves when a run goes on.

    config.yaml  environment.json  manifest.json  vocabularies.json  vocabularies/  plan.json  plan.txt  metrics.jsonl
    tensorboard/{train,eval}  checkpoints/  logs/attempt_N/rank_K.log  logs/latest  profile/  export/

All hosts see it: a shared file system. Contents are the business of those who write them. Imports no torch.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.errors import UserError
from trainer.run.folder import Folder

LOCK = ".lock"
_ATTEMPT = re.compile(r"attempt_(\d+)")


class RunDirectory:
    """Paths of a run. Making one touches nothing on the disk.

    Raises:
        UserError: a URL; logs and TensorBoard need a file system.
    """

    def __init__(self, path: str | Path) -> None:
        if "://" in str(path):
            raise UserError(
                f"training.run_dir is {path}, a URL\nuse a path that all hosts see: NFS, or a mounted bucket"
            )
        self.path = Path(path).expanduser().absolute()
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.manifest = self.path / "manifest.json"
        self.manifest_lock = self.path / ".manifest.lock"
        self.vocabularies = self.path / "vocabularies"
        self.vocabulary_list = self.path / "vocabularies.json"
        self.plan_json = self.path / "plan.json"
        self.plan_text = self.path / "plan.txt"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.logs = self.path / "logs"
        self.profile = self.path / "profile"
        self.quarantined = self.path / "quarantined.json"
        self.export = self.path / "export"
        self.result = self.path / "result.json"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def is_used(self) -> bool:
        return self.config.exists()

    def create(self, config_yaml: str, *, resume: bool = False, overwrite: bool = False) -> str | None:
        """Makes the directory ready for a run. Called once, by the process that submits the workers.

        Returns:
            The config of the run that goes on, which is left in place for the caller to compare and `write_config`;
            None for a new run.

        Raises:
            UserError: the directory is used and neither flag says what to do, or it is not a run's.
        """
        if resume and overwrite:
            raise UserError("--resume and --overwrite exclude each other\npass one of them")
        if self.is_used and resume:
            return self.config.read_text()
        if self.is_used and not overwrite:
            raise UserError(
                f"{self.path} has a run already\ngo on with it: --resume; delete it and start again: --overwrite; "
                f"or keep it and take another name: training.run_dir={_free_name(self.path)}"
            )
        self._clear()
        self.write_config(config_yaml)
        return None

    def write_config(self, config_yaml: str) -> None:
        write_text(self.config, config_yaml)

    def start_attempt(self) -> int:
        """Number of this start of the workers, from 1; its log folder is made and `logs/latest` points to it."""
        self.logs.mkdir(parents=True, exist_ok=True)
        while True:
            number = 1 + max((int(m[1]) for p in self.logs.iterdir() if (m := _ATTEMPT.fullmatch(p.name))), default=0)
            try:
                self.attempt_logs(number).mkdir()
            except FileExistsError:
                continue
            _point(self.logs / "latest", self.attempt_logs(number).name)
            return number

    def attempt_logs(self, attempt: int) -> Path:
        return self.logs / f"attempt_{attempt}"

    def rank_log(self, attempt: int, rank: int) -> Path:
        return self.attempt_logs(attempt) / f"rank_{rank}.log"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other jobs out while this process, which submits the workers, lives.

        The lock is the kernel's (also over NFS), so nothing is left of it after a SIGKILL. Workers do not take it, and
        may start as often as they must.

        Raises:
            UserError: another process holds it; says where.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                with suppress_missing_locks():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{self.path} is in use by {os.pread(descriptor, 200, 0).decode() or 'another process'}\n"
                    "wait for it, end it, or take another name: "
                    f"training.run_dir={_free_name(self.path)}"
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _clear(self) -> None:
        """Removes a former run, and only what a run writes. config.yaml goes last: a second try still finds a run.

        Raises:
            UserError: something else is there.
        """
        own = {value.name for name, value in vars(self).items() if name != "path"}
        there = {path.name for path in self.path.iterdir()} if self.path.exists() else set()
        strangers = sorted(there - own - {LOCK})
        if strangers and not self.is_used:
            raise UserError(
                f"{self.path} is no run directory: it has {', '.join(strangers[:5])}\n"
                "give training.run_dir the name of a new or an empty folder"
            )
        for name in sorted(own & there, key=lambda name: name == self.config.name):
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextmanager
def suppress_missing_locks() -> Iterator[None]:
    """Goes on without a lock on a file system that has none."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise


def open_run(path: str | Path) -> RunDirectory:
    """A run that is there. Raises UserError, naming runs nearby, if it is not."""
    run = RunDirectory(path)
    if not run.is_used:
        nearby = [str(p.parent) for p in sorted(run.path.parent.glob("*/config.yaml"))][:5]
        raise UserError(
            f"{path} is no run: it has no config.yaml\n"
            + (f"runs beside it: {', '.join(nearby)}" if nearby else "give the folder that `train` wrote to")
        )
    return run


def write_text(path: Path, text: str) -> None:
    """Replaces a small file at once: a reader, or a crash, sees the old text or the new one."""
    Folder(path.parent).write_bytes(path.name, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def _point(link: Path, target: str) -> None:
    """Makes a symlink, or moves it, at once."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        temporary.symlink_to(target)
        temporary.replace(link)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system without symlinks
            raise


def _free_name(path: Path) -> Path:
    number = 2
    while path.with_name(f"{path.name}-{number}").exists():
        number += 1
    return path.with_name(f"{path.name}-{number}")
