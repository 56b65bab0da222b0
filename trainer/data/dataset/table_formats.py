"""Folders that hold a table of a format with a log of its own: Delta Lake, Iceberg, Hudi, Paimon and their kin.

Such a table keeps files that an update or a delete has replaced. Only its log says which rows are alive: read as plain
Parquet, deleted rows come back and changed ones are there twice. So they are refused, with what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow.fs as fs

from configs.errors import UserError
from trainer.data.dataset.source import Source, file_url


@dataclass(frozen=True)
class _Format:
    """A format, and the name below a table's folder that tells it."""

    name: str
    mark: re.Pattern[str]
    remedy: str


_PLAIN = "Write its current rows as plain Parquet into another folder, and give that: in Spark "
_FORMATS = (
    _Format("a Delta Lake table", re.compile(r"_delta_log(/|$)"), _PLAIN + '.read.format("delta"), .write.parquet.'),
    _Format(
        "an Iceberg table",
        re.compile(r"metadata/([^/]*\.metadata\.json(\.gz)?|version-hint\.text|snap-[^/]*\.avro)$"),
        _PLAIN + '.read.format("iceberg"), .write.parquet.',
    ),
    _Format(
        "a Hudi table",
        re.compile(r"\.hoodie(_partition_metadata|/|$)"),
        _PLAIN + '.read.format("hudi"), .write.parquet.',
    ),
    _Format(
        "a Paimon table",
        re.compile(r"snapshot/(snapshot-\d+|LATEST|EARLIEST)$"),
        _PLAIN + '.read.format("paimon"), .write.parquet.',
    ),
    _Format(
        "a transactional Hive table",
        re.compile(r"(base_\d{7}|(delete_)?delta_\d{7}_\d{7}(_\d+)?)(_v\d+)?/"),
        "Write its current rows as plain Parquet into a table without transactions, and give that one's folder.",
    ),
    _Format(
        "the output of a Spark stream, whose log in _spark_metadata says which files count",
        re.compile(r"_spark_metadata(/|$)"),
        "Write what spark.read.parquet gives into another folder; or delete _spark_metadata, if no write ever failed.",
    ),
)
_ANY = re.compile("|".join(f"(?:{format_.mark.pattern})" for format_ in _FORMATS))
_ABOVE = (
    "_delta_log",
    ".hoodie",
    "_spark_metadata",
    "snapshot/LATEST",
)  # what tells the table that a folder is a partition of


def refuse_tables(root: str, names: Iterable[str]) -> None:
    """Looks for tables among all names below `root`, hidden ones too; a folder that was not opened is a name.

    Raises:
        UserError: there is one.
    """
    for name in filter(_ANY.search, names):
        for format_ in _FORMATS:
            place = next((found.start() for found in format_.mark.finditer(name) if _starts_a_name(name, found)), None)
            if place is not None:
                _refuse(file_url(root, name[:place]).rstrip("/"), format_)


def refuse_table_around(source: Source) -> None:
    """Looks at the folders above the source's, of which it may be a partition.

    Raises:
        UserError: one is a table.
    """
    for folder in _folders_above(source):
        wanted = [f"{folder}/{name}" for name in _ABOVE]
        for info in _infos(source, wanted, fs.FileSelector(f"{folder}/metadata", allow_not_found=True)):
            below = info.path[len(folder) + 1 :]
            for format_ in _FORMATS:
                if info.type != fs.FileType.NotFound and format_.mark.match(below):
                    _refuse(f"{source.root} lies in {folder}, which", format_)


def _folders_above(source: Source) -> Iterator[str]:
    folder = source.folder
    while "/" in folder.strip("/"):
        folder = folder.rpartition("/")[0]
        yield folder


def _infos(source: Source, paths: list[str], listing: fs.FileSelector) -> list[fs.FileInfo]:
    """What is there; a folder above that may not be looked at is none of ours."""
    try:
        return [*source.filesystem.get_file_info(paths), *source.filesystem.get_file_info(listing)]
    except OSError:
        return []


def _starts_a_name(name: str, found: re.Match[str]) -> bool:
    return not found.start() or name[found.start() - 1] == "/"


def _refuse(what: str, format_: _Format) -> None:
    raise UserError(f"{what} is {format_.name}, and its old files are not told from its rows here\n{format_.remedy}")
