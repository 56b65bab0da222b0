"""The vocabularies of a run, by content: a file that is written anew later changes nothing about the run.

    vocabularies/<checksum>.txt  as each was at the first start; vocabularies.json  feature -> checksum

Training, a restart, a resume, an evaluation and an export read these copies. What a line means is for the transform.
"""

from collections.abc import Mapping
from pathlib import Path

from configs.errors import UserError
from configs.schema import Config, Feature
from embeddings.features.files import files_of, with_files
from trainer.file_record import checksum as checksum_of
from trainer.run.folder import Folder
from trainer.run.run_directory import RunDirectory, read_json, write_json


def keep_vocabularies(run: RunDirectory, config: Config) -> None:
    """Copies the vocabularies of `config` into the run, but for those that it has already.

    Raises:
        UserError: one cannot be read.
    """
    known = _read(run)
    checksums = dict(known)
    for feature, path in files_of(config.features).items():
        if feature not in known:
            content = _content(feature, path)
            checksums[feature] = checksum_of(content)
            Folder(run.vocabularies).write_bytes(_name(checksums[feature]), content)
    if checksums != known:
        write_json(run.vocabulary_list, checksums)


def features_of(run: RunDirectory, config: Config) -> dict[str, Feature]:
    """The features of the run's config, with the vocabularies that the run keeps.

    Raises:
        UserError: a copy is missing or damaged.
    """
    paths = {}
    for feature, checksum in _read(run).items():
        path = run.vocabularies / _name(checksum)
        found = checksum_of(path.read_bytes()) if path.exists() else None
        if found != checksum:
            raise UserError(
                f"{path}, the run's vocabulary of features.{feature}, is {'damaged' if found else 'missing'}\n"
                "Restore it: another one would give the IDs rows of others."
            )
        paths[feature] = str(path)
    return with_files(config.features, paths)


def changed_vocabularies(run: RunDirectory, former: Config, config: Config) -> list[str]:
    """A line for each vocabulary that is no longer what the run keeps. One that is gone is none.

    Raises:
        UserError: the config names another file than `former`, the run's config, and it has other lines.
    """
    lines, before, now = [], files_of(former.features), files_of(config.features)
    for feature, checksum in _read(run).items():
        if feature not in now or _unchanged(now[feature], checksum):
            continue
        key = f"features.{feature}.vocabulary"
        if now[feature] != before[feature]:
            raise UserError(
                f"{key}: {now[feature]} differs from {before[feature]}, with which the run was started\n"
                "--resume cannot change it: put the old path back, or start a new run with another training.run_dir."
            )
        lines.append(f"{key}: {now[feature]} has changed since the run was started, which keeps its own copy")
    return lines


def _unchanged(path: str, checksum: str) -> bool:
    return not Path(path).exists() or checksum_of(Path(path).read_bytes()) == checksum


def _content(feature: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"features.{feature}: vocabulary {path} cannot be read: {error}\nIt is a UTF-8 file with one ID per line."
        ) from None


def _read(run: RunDirectory) -> Mapping[str, str]:
    return read_json(run.vocabulary_list) or {}


def _name(checksum: str) -> str:
    return f"{checksum}.txt"
