"""What belongs to a data set: the one definition, for training, inspection, scoring and export alike.

Data are the files below the root whose names end in .parquet, .parq or .pq, in capitals too, and those without any
suffix that begin as Parquet does, as Hive and Trino write them. What is skipped is said, with the reason:

- hidden files and folders, whose names begin with a dot, or with an underscore unless they are a partition (_day=1)
- names of another kind, such as notes.txt or part-0.parquet.bak
- second ways to what is there already, see `trainer.data.dataset.walk`

Tables of formats that keep dead files are refused, see `trainer.data.dataset.table_formats`. Footers are read in
`trainer.data.dataset.scan`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from configs.errors import UserError
from trainer.data.dataset.faults import unreadable, until_answered
from trainer.data.dataset.footers import ENCRYPTED_MAGIC, MAGIC
from trainer.data.dataset.partitions import folder_of, partition_key
from trainer.data.dataset.source import Source, file_url
from trainer.data.dataset.table_formats import refuse_table_around, refuse_tables
from trainer.data.dataset.threads import in_threads
from trainer.data.dataset.walk import Found, Skipped, walk

SUFFIXES = (".parquet", ".parq", ".pq")
_THREADS = 24  # files without a suffix that are looked into at once
_SHOWN = 3  # names that are given for each reason


class Listing(NamedTuple):
    """The files of a data set in the order of their partitions, then of their names; and what was skipped."""

    files: tuple[Found, ...]
    skipped: tuple[Skipped, ...]


def list_files(source: Source, timeout_s: float, known: Collection[str] = ()) -> Listing:
    """The files of the data set in the source's folder.

    Args:
        timeout_s: for which a storage that does not answer is asked again.
        known: paths of files that are known to be data: those without a suffix are not looked into.

    Raises:
        UserError: the folder cannot be read or has no Parquet file, is a table of another format, or a file of it has
            a name that cannot be used.
        StorageUnavailable: the storage does not answer.
    """
    found = until_answered(partial(walk, source), timeout_s)
    refuse_tables(source.root, found.names)
    refuse_table_around(source)
    _refuse_broken_links(source, found.skipped)
    files, skipped = _sort_out(source, found.files, set(known), timeout_s)
    for path, _ in files:
        _refuse_name(source, path)
    listing = Listing(tuple(in_order(files)), (*found.skipped, *skipped))
    if not files:
        line = skipped_line(source.root, listing.skipped)
        raise UserError(
            "\n".join(
                [
                    f"{source.root} has no Parquet file",
                    *([line] if line else []),
                    f"Data files end in {', '.join(SUFFIXES)}, or have no suffix.",
                ]
            )
        )
    return listing


def skipped_line(root: str, skipped: Iterable[Skipped]) -> str | None:
    """One line that says how much was skipped below `root`, which, and why; None if nothing was."""
    reasons = groupby(sorted(skipped, key=lambda entry: entry.why), key=lambda entry: entry.why)
    counted = [_counted(why, list(entries)) for why, entries in reasons]
    return f"skipped in {root}: {'; '.join(counted)}" if counted else None


def in_order(files: Iterable[Found]) -> list[Found]:
    """Files by folder, then by name: a partition is contiguous, and partitions come as `partition_key` says."""
    return sorted(files, key=lambda file: (partition_key(folder_of(file.path)), file.path))


def _sort_out(
    source: Source, found: Sequence[Found], known: set[str], timeout_s: float
) -> tuple[list[Found], list[Skipped]]:
    """Tells data from what is not."""
    files, skipped, unclear = [], [], []
    for file in found:
        name = file.path.rpartition("/")[2]
        if file.path in known or name.lower().endswith(SUFFIXES):
            files.append(file)
        elif "." in name:
            skipped.append(Skipped(file.path, "not named as Parquet"))
        elif not file.size:
            skipped.append(Skipped(file.path, "empty"))
        else:
            unclear.append(file)
    heads = in_threads(
        lambda file: until_answered(partial(_begins_as_parquet, source, file.path), timeout_s),
        unclear,
        _THREADS,
        2 * timeout_s,
    )
    for file, is_parquet in zip(unclear, heads, strict=True):
        if is_parquet:
            files.append(file)
        else:
            skipped.append(Skipped(file.path, "not Parquet"))
    return files, skipped


def _begins_as_parquet(source: Source, path: str) -> bool:
    _refuse_name(source, path)
    try:
        with source.open(path) as file:
            return file.read(len(MAGIC)) in (MAGIC, ENCRYPTED_MAGIC)
    except OSError as error:
        raise unreadable(file_url(source.root, path), error, "Check that it is there and readable.") from error


def _refuse_broken_links(source: Source, skipped: Iterable[Skipped]) -> None:
    for path, why in skipped:
        if why == "broken link" and path.lower().endswith(SUFFIXES):
            raise UserError(
                f"{shown(file_url(source.root, path))} is a link to a file that is not there\nRestore the file, or "
                "delete the link."
            )


def _refuse_name(source: Source, path: str) -> None:
    """Refuses what could not be opened, or not be written to logs and to the run directory."""
    where = file_url(source.root, path)
    if shown(path) != path:
        raise UserError(f"{shown(where)}: its name is not UTF-8\nRename the file or its folder.")
    if not source.is_local and "" in path.split("/"):
        raise UserError(f"{where}: its key has two slashes in a row, an empty name\nCopy the object to another key.")


def shown(path: str) -> str:
    """A path for people: bytes that are not UTF-8 as \\xNN."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _counted(why: str, entries: Sequence[Skipped]) -> str:
    more = ", ..." if len(entries) > _SHOWN else ""
    return f"{len(entries):,} {why} ({', '.join(shown(entry.path) for entry in entries[:_SHOWN])}{more})"
