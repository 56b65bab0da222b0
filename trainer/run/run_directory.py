"""The folder that a run writes to: names of its files, who may use it, and what it keeps when a run resumes.

    config.yaml  environment.json  manifest.json  vocabularies.json  vocabularies/  plan.json  plan.txt
    formulations.json  metrics.jsonl  history.jsonl  tensorboard/{train,eval}  checkpoints/  logs/latest
    logs/attempt_N/rank_K.log  profile/  export/

All hosts see it: a shared file system. Contents are the business of those who write them. Imports no torch.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.outputs import check_output, make_folder
from trainer.run.folder import Folder
from trainer.run.lock import LOCK, locked

_ATTEMPT = re.compile(r"attempt_(\d+)")
_DRAFT = re.compile(r"\.(.+)\.\d+\.tmp")  # of a small file, when its writer was killed
_SECTIONS = {"data", "features", "tables", "model", "tasks", "training", "checkpoint", "launch"}
"""Keys at the top of every run's config.yaml, which is written with all defaults. A file of that name without them is
another program's, or a config that a user wrote by hand."""
_INSIDE = {
    "checkpoints": r"step_\d+|deltas|attempts",
    "logs": r"(attempt_|latest).*|ray|evaluate",
    "tensorboard": r"train|eval|.*tfevents.*",
    "vocabularies": r"[0-9a-f]+\.txt",
    "profile": r".*\.json(\.gz)?",
}
"""Folder of a run -> names of what the run writes there."""


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
        self.formulations = self.path / "formulations.json"
        self.metrics = self.path / "metrics.jsonl"
        self.history = self.path / "history.jsonl"
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
        """Whether a run is here: config.yaml is that of one."""
        if not self.config.is_file():
            return False
        keys = re.findall(r"^([A-Za-z_]+):", self.config.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        return set(keys) >= _SECTIONS

    def check(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Refuses what `create` cannot use; touches nothing.

        Raises:
            UserError: the directory is used and neither flag says what to do, it holds what no run wrote, or it cannot
                be written to.
        """
        if resume and overwrite:
            raise UserError("--resume and --overwrite exclude each other\npass one of them")
        check_output(self.path, "training.run_dir", "folder", is_own=lambda path: True, overwrite=True)
        if not self.is_used:
            self._refuse_strangers()
        elif not (resume or overwrite):
            raise UserError(
                f"{self.path} has a run already\nresume it: --resume; delete it and start again: --overwrite; "
                f"or keep it and take another name: training.run_dir={_free_name(self.path)}"
            )

    def create(self, config_yaml: str, *, resume: bool = False, overwrite: bool = False) -> str | None:
        """Makes the directory ready for a run. Called once, by the process that submits the workers.

        Returns:
            The config of the run that resumes, which is left in place for the caller to compare and `write_config`;
            None for a new run.

        Raises:
            UserError: as `check`.
        """
        self.check(resume=resume, overwrite=overwrite)
        if self.is_used and resume:
            return self.config.read_text()
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
            latest = self.logs / "latest"
            if latest.is_dir() and not latest.is_symlink():  # in a copy that was made with links followed
                latest.rename(self.logs / f"latest_before_attempt_{number}")
            _point(latest, self.attempt_logs(number).name)
            return number

    def attempt_logs(self, attempt: int) -> Path:
        return self.logs / f"attempt_{attempt}"

    def rank_log(self, attempt: int, rank: int) -> Path:
        return self.attempt_logs(attempt) / f"rank_{rank}.log"

    def lock(
        self, *, takes_over: bool = False, say: Callable[[str], None] = lambda line: None
    ) -> AbstractContextManager[None]:
        """Keeps other jobs out while this process, which submits the workers, lives. Workers do not take it.

        takes_over: whether the lock of a job that gives no sign of life may be taken.

        Raises:
            UserError: another process holds it; says where. Or the directory cannot be made.
        """
        make_folder(self.path, "training.run_dir")
        remedy = f"wait for it, end it, or take another name: training.run_dir={_free_name(self.path)}"
        return locked(self.path, remedy, takes_over=takes_over, say=say)

    def _names(self) -> set[str]:
        return {path.name for path in self.path.iterdir()} if self.path.exists() else set()

    def _own(self) -> set[str]:
        """Names of what a run writes."""
        own = {value.name for name, value in vars(self).items() if name != "path"}
        drafts = {name for name in self._names() if (draft := _DRAFT.fullmatch(name)) and draft[1] in own}
        return own | drafts

    def _refuse_strangers(self) -> None:
        """Without a run's config.yaml everything here may be another program's, whatever its name."""
        drafts = {name for name in self._own() if _DRAFT.fullmatch(name)}
        found = {name for name in self._names() if not name.startswith(LOCK)} - {self.manifest_lock.name} - drafts
        if not found:
            return
        shown = f"{', '.join(sorted(found)[:5])}{' and more' if len(found) > 5 else ''}"
        remedy = "give training.run_dir the name of a new or an empty folder"
        if self.checkpoints.name in found:
            remedy += f"; {self._without_config()}"
        raise UserError(f"{self.path} is not a run: it has {shown}, and no config.yaml of one\n{remedy}")

    def _without_config(self) -> str:
        """What to do where checkpoints are those of a run, whose config.yaml is not."""
        lost = "has a damaged config.yaml" if self.config.exists() else "lost its config.yaml"
        again = f"python -m trainer config CONFIG > {self.config}"
        return f"if a run {lost} here, restore that file, or write it again: {again}"

    def _clear(self) -> None:
        """Removes a former run, and only what a run writes. config.yaml goes last: a second try still finds a run."""
        for name in sorted(self._own() & self._names(), key=lambda name: name == self.config.name):
            path = self.path / name
            if name not in _INSIDE or path.is_symlink() or not path.is_dir():
                _delete(path)
                continue
            for inner in list(path.iterdir()):
                if re.fullmatch(_INSIDE[name], inner.name):
                    _delete(inner)
            with suppress(OSError):  # not empty: a user's files are there
                path.rmdir()


def open_run(path: str | Path) -> RunDirectory:
    """A run that is there. Raises UserError, naming runs nearby, if it is not."""
    run = RunDirectory(path)
    if not run.is_used:
        nearby = [str(p.parent) for p in sorted(run.path.parent.glob("*/config.yaml"))][:5]
        if run.checkpoints.is_dir():
            raise UserError(f"{path} is not a run: it has no config.yaml of one\n{run._without_config()}")
        raise UserError(
            f"{path} is not a run: it has no config.yaml of one\n"
            + (f"runs beside it: {', '.join(nearby)}" if nearby else "give the folder that `train` wrote to")
        )
    return run


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None if there is no file.

    Raises:
        UserError: the file was cut or changed.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:  # UnicodeDecodeError is one
        raise UserError(
            f"{path} is cut or damaged: {error}\nrestore that file, or start the run again with --overwrite"
        ) from None


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


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _free_name(path: Path) -> Path:
    number = 2
    while path.with_name(f"{path.name}-{number}").exists():
        number += 1
    return path.with_name(f"{path.name}-{number}")
