"""A file that is being written, with a running checksum and every part aligned. What is written is others' business."""

from typing import IO

import xxhash

from trainer.file_record import FileRecord

_ALIGNMENT = 64


class Sink:
    """
    Attributes:
        at: bytes written.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.at, self._file, self._digest = 0, file, xxhash.xxh3_128()

    def write(self, content: "bytes | bytearray | memoryview") -> None:
        self._file.write(content)
        self._digest.update(content)
        self.at += len(content)

    def align(self) -> None:
        """The next part begins at a multiple of 64 bytes."""
        self.write(bytes(-self.at % _ALIGNMENT))

    @property
    def record(self) -> FileRecord:
        return FileRecord(self.at, self._digest.hexdigest())
