"""New partitions of a data set that grows while a run trains on it.

A manifest is only ever extended, by whole partitions that come after all it has: the batches of the past stay what they
were. One process extends it and writes it down; the readers of all ranks take it from there, see `Reader`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow.fs as fs

from trainer.data.manifest import Manifest, partition_key
from trainer.data.scan import list_files, read_footers
from trainer.data.source import Source, open_source

MARKER = "_SUCCESS"  # the file that Spark and Hadoop write into a folder when it is complete


class Extended(NamedTuple):
    """A manifest with its new partitions, and the files that came too late to be trained on."""

    manifest: Manifest
    late: tuple[str, ...]


def extend(manifest: Manifest) -> Extended:
    """`manifest` with the partitions that have become complete since, in order.

    A partition is complete when it holds a file named _SUCCESS, or when there are files in a later one. Files in
    partitions that the manifest has, or would have to put before its last one, are late.

    Raises:
        UserError: the folder cannot be read, or a file is damaged.
    """
    source = open_source(manifest.root)
    found = list_files(source)
    have = {file.path for file in manifest.files}
    last = partition_key(manifest.partitions[-1])
    new = [(path, size) for path, size in found if path not in have]
    late = [path for path, _ in new if partition_key(_folder(path)) <= last]
    complete = _complete(source, [_folder(path) for path, _ in new if partition_key(_folder(path)) > last])
    taken = [(path, size) for path, size in new if _folder(path) in complete]
    if taken:
        known = [(file.path, file.size) for file in manifest.files]
        manifest = read_footers(source, known + taken, manifest)
    return Extended(manifest, tuple(late))


def _complete(source: Source, folders: Sequence[str]) -> set[str]:
    """The partitions before which all are complete, and which are so themselves."""
    partitions = sorted(set(folders), key=partition_key)
    complete = set(partitions[:-1])
    for last in partitions[-1:]:
        (info,) = source.filesystem.get_file_info([source.path(f"{last}/{MARKER}")])
        if info.type == fs.FileType.File:
            complete.add(last)
    return complete


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
