"""New partitions of a data set that grows while a run trains on it.

A manifest is only ever extended, by whole partitions that come after all it has: the batches of the past stay what they
were. When that happens in a run, and that all ranks do it together, is for `trainer.run.following`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow.fs as fs

from configs.errors import UserError
from trainer.data.dataset.faults import unreadable, until_answered
from trainer.data.dataset.manifest import Manifest, partition_key
from trainer.data.dataset.scan import Look, list_files, read_footers
from trainer.data.dataset.source import Source, file_url, open_source

MARKER = "_SUCCESS"  # the file that Spark and Hadoop write into a folder when it is complete


class Extended(NamedTuple):
    """A manifest with its new partitions, and the files that came too late to be trained on."""

    manifest: Manifest
    late: tuple[str, ...]


def complete_partitions(root: str, part: str, timeout_s: float, look: Look | None = None) -> Manifest:
    """The manifest of the partitions below `root`/`part` that are complete.

    Raises:
        UserError: there is none, the folder cannot be read, or a file is damaged.
    """
    manifest = extend(Manifest(open_source(root, part).root, (), ()), timeout_s, look).manifest
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
        look: called with the name and the metadata of every new file; may raise.

    Raises:
        UserError: the folder cannot be read, or a file is damaged.
        StorageUnavailable: the storage does not answer.
    """
    source = open_source(manifest.root)
    found = list_files(source, timeout_s)
    have = {file.path for file in manifest.files}
    last = partition_key(manifest.partitions[-1]) if manifest.partitions else []
    new = [(path, size) for path, size in found if path not in have]
    late = [path for path, _ in new if partition_key(_folder(path)) <= last]
    complete = _complete(source, [_folder(path) for path, _ in new if partition_key(_folder(path)) > last], timeout_s)
    taken = [(path, size) for path, size in new if _folder(path) in complete]
    if taken:
        known = [(file.path, file.size) for file in manifest.files]
        manifest = read_footers(source, known + taken, manifest, timeout_s, look)
    return Extended(manifest, tuple(late))


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


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
