"""A file's record, its size and checksum: the one form in which checkpoints, bundles and a run's own files keep it.

Imports no torch: serving needs it too.
"""

from dataclasses import dataclass
from typing import IO

import xxhash

_READ_BYTES = 8 << 20


@dataclass(frozen=True)
class FileRecord:
    """Bytes of a file and their xxh3-128 checksum, in hex."""

    size: int
    checksum: str


def checksum(content: bytes) -> str:
    """xxh3-128, in hex."""
    return xxhash.xxh3_128_hexdigest(content)


def record_of(file: IO[bytes]) -> FileRecord:
    """The record of an open file, from its place to its end, read block by block."""
    digest, size = xxhash.xxh3_128(), 0
    while block := file.read(_READ_BYTES):
        digest.update(block)
        size += len(block)
    return FileRecord(size, digest.hexdigest())
