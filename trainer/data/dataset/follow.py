"""New partitions of a data set that grows while a run trains on it.

A manifest is only ever extended, by whole partitions that come after all it has: the batches of the past stay what they
were. Rows without a value of a partition column (Hive's default partition) have no place in that order and are skipped:
their folder would come after all others for good. When that happens in a run, and that all ranks do it together, is for
`trainer.run.following`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow.fs as fs

from configs.errors import UserError
from trainer.data.dataset.faults import unreadable, until_answered
from trainer.data.dataset.listing import list_files
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.partitions import folder_of, is_null, partition_key
from trainer.data.dataset.scan import Look, Say, read_footers, say_skipped
from trainer.data.dataset.source import Source, file_url, open_source
from trainer.data.dataset.walk import Found, Skipped

MARKER = "_SUCCESS"  # the file that Spark and Hadoop write into a folder when it is complete


class Extended(NamedTuple):
    """A manifest with its new partitions.

    Attributes:
        manifest: it.
        late: files that came too late to be trained on.
        skipped: what does not count as data, or has no place in the order.
    """

    manifest: Manifest
    late: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def complete_partitions(
    root: str, part: str, timeout_s: float, look: Look | None = None, say: Say | None = None
) -> Manifest:
    """The manifest of the partitions below `root`/`part` that are complete.

    Args:
        look: called with the name and the footer of every file; may raise.
        say: given a line about what was skipped.

    Raises:
        UserError: there is none, the folder cannot be read, or a file is damaged.
    """
    manifest, _, skipped = extend(Manifest(open_source(root, part).root, (), ()), timeout_s, look)
    say_skipped(manifest.root, skipped, say)
    if not manifest.rows:
        raise UserError(
            f"{manifest.root} has no complete partition with rows\ndata.follow trains on a folder when it holds a file "
            f"{MARKER}, or when there are files in a later one: write one, or set data.follow=false."
        )
    return manifest


def extend(manifest: Manifest, timeout_s: float, look: Look | None = None) -> Extended:
    """`manifest` with the partitions that have become complete since, in order.

    A partition is complete when it holds a file named _SUCCESS, or when there are files in a later one. Files in
    partitions that the manifest has, or would have to put before its last one, are late.

    Args:
        timeout_s: for which a storage that does not answer is asked again.
        look: called with the name and the footer of every new file; may raise.

    Raises:
        UserError: the folder cannot be read, or a file is damaged.
        StorageUnavailable: the storage does not answer.
    """
    source = open_source(manifest.root)
    have = {file.path for file in manifest.files}
    listing = list_files(source, timeout_s, have)
    new = [file for file in listing.files if file.path not in have]
    without_value = dict.fromkeys(folder_of(file.path) for file in new if is_null(folder_of(file.path)))
    late, coming = _by_time(manifest, [file for file in new if not is_null(folder_of(file.path))])
    complete = _complete(source, [folder_of(file.path) for file in coming], timeout_s)
    taken = [file for file in coming if folder_of(file.path) in complete]
    encrypted: list[Skipped] = []
    if taken:
        known = [Found(file.path, file.size) for file in manifest.files]
        manifest, encrypted = read_footers(source, known + taken, manifest, timeout_s, look)
    placeless = [Skipped(folder, "without a value, for data.follow") for folder in without_value]
    return Extended(manifest, tuple(file.path for file in late), (*listing.skipped, *encrypted, *placeless))


def _by_time(manifest: Manifest, new: Sequence[Found]) -> tuple[list[Found], list[Found]]:
    """Files that come too late, and those of later partitions than the manifest's last one."""
    placed = [partition for partition in manifest.partitions if not is_null(partition)]
    last = partition_key(placed[-1]) if placed else []
    late, coming = [], []
    for file in new:
        folder = folder_of(file.path)
        is_late = folder in manifest.partitions or partition_key(folder) <= last
        (late if is_late else coming).append(file)
    return late, coming


def _complete(source: Source, folders: Sequence[str], timeout_s: float) -> set[str]:
    """The partitions before which all are complete, and which are so themselves."""
    partitions = sorted(set(folders), key=partition_key)
    complete = set(partitions[:-1])
    for last in partitions[-1:]:
        if until_answered(lambda: _is_marked(source, last), timeout_s):  # noqa: B023 - called at once
            complete.add(last)
    return complete


def _is_marked(source: Source, partition: str) -> bool:
    marker = f"{partition}/{MARKER}"
    try:
        (info,) = source.filesystem.get_file_info([source.path(marker)])
    except OSError as error:
        raise unreadable(file_url(source.root, marker), error, "Check the permissions of the folder.") from error
    return info.type == fs.FileType.File
