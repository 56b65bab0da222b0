"""Whether a folder is one folder for all nodes: what one writes, all others read."""

import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.doctor.findings import Finding, by_value, named
from cluster.doctor.nodes import Answers, ask
from configs.doctor_config import DoctorConfig

_GRACE_S = 10.0  # of a node's answer, beyond what it may wait for the files


def check_folder(title: str, path: str, examiners: Mapping[str, Any], settings: DoctorConfig) -> Iterator[Finding]:
    """title: what the folder is to the user, such as "training.run_dir"."""
    folder = str(nearest(Path(path)))
    where = path if folder == path else f"{path} (not there yet; looked at is {folder})"
    files = {node: f".doctor-{secrets.token_hex(8)}" for node in examiners}
    try:
        wrote = ask(examiners, lambda node, one: one.write.remote(folder, files[node]), settings.folder_s)
        refused = {node: problem for node, problem in wrote.values.items() if problem} | wrote.problems
        written = [files[node] for node in examiners if node not in refused]
        missing = _missing(examiners, folder, written, settings)
    finally:
        ask(examiners, lambda _, one: one.remove.remote(folder, list(files.values())), settings.folder_s)
    for problem, nodes in by_value(refused).items():
        remedy = "mount it there at the same path, with the right to write"
        yield Finding("folders", "error", f"{title}={where}: {named(nodes)} cannot write: {problem}", remedy)
    alone = {node: [owner for owner in examiners if files[owner] in names] for node, names in missing.values.items()}
    if blind := {node: owners for node, owners in alone.items() if owners and node not in refused}:
        node, owners = next(iter(blind.items()))
        said = f"{title}={where}: {named(blind)} cannot see what others write ({node}: nothing of {named(owners)})"
        yield Finding("folders", "error", said, "mount one shared file system there on all nodes")
    for problem, nodes in by_value(missing.problems).items():
        yield Finding(
            "folders", "error", f"{title}={where}: {named(nodes)} could not look: {problem}", "is it hanging?"
        )
    free = shutil.disk_usage(folder).free / 2**30
    if free < settings.min_free_gib:
        said = f"{title}={where} has {free:.1f} GiB of free space, wanted are {settings.min_free_gib:g}"
        yield Finding("folders", "warning", said, "make room there")
    if not refused and not blind and not missing.problems:
        said = "written and read" if len(examiners) == 1 else f"written by each of {len(examiners)} nodes, read by all"
        yield Finding(
            "folders", "ok", f"{title}={where}: {said}, {free:.0f} GiB free", values={"free_gib": round(free, 1)}
        )


def _missing(examiners: Mapping[str, Any], folder: str, names: list[str], settings: DoctorConfig) -> Answers:
    wait = settings.folder_s
    return ask(examiners, lambda _, one: one.missing.remote(folder, names, wait), wait + _GRACE_S)


def nearest(path: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
