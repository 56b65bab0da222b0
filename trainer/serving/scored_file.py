"""One file of scores: where it is, whether `score` wrote it, and written so that there is a whole file or none.

It lies in a local folder or in an object store; what is in it, beside the mark in its footer, is for `score`.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
import xxhash

from configs.errors import UserError
from configs.outputs import check_output, make_folder
from trainer.data.dataset.faults import unreadable
from trainer.data.dataset.source import Source, file_url

PREFIX = "predicted_"
MARK = b"multigate.score"  # in the footer of what `score` wrote: JSON of bundle, input, tasks and a digest
_ARGUMENT = "OUT, the last argument,"
_MOST_COPIED, _COPIED_AT_A_TIME = 5 << 30, 16 << 20  # bytes


class ScoredFile:
    """A place for scores.

    Attributes:
        place: local path, or URL without options.
    """

    def __init__(self, folder: Source, name: str) -> None:
        self._folder, self._name = folder, name
        path = folder.path(name)
        self.place: Path | str = Path(path) if folder.is_local else file_url(folder.root, name)

    def check(self, overwrite: bool) -> None:
        """Raises UserError where something is in the way."""
        if isinstance(self.place, Path):
            check_output(self.place, _ARGUMENT, "file", is_own=lambda _: self.mark() is not None, overwrite=overwrite)
        elif self.is_there() and self.mark() is None:
            raise UserError(f"{self.place} is there already\ngive {_ARGUMENT} another name")
        elif self.is_there() and not overwrite:
            raise UserError(f"{self.place} is there already\n--overwrite replaces it, or give {_ARGUMENT} another name")

    def is_there(self) -> bool:
        """Whether there is a file."""
        try:
            found = self._folder.filesystem.get_file_info(self._folder.path(self._name))
        except OSError as error:
            raise unreadable(str(self.place), error, "Check the URL and the credentials.") from error
        return found.type == fs.FileType.File

    def mark(self) -> dict[str, Any] | None:
        """What `score` left in the file, if it wrote that and nobody changed it: what is made from one inherits the
        mark in its footer, so predictions are compared with the digest in it."""
        try:
            with self._folder.open(self._name) as file, pq.ParquetFile(file) as parquet:
                mark = json.loads((parquet.metadata.metadata or {}).get(MARK, b"null"))
                if not isinstance(mark, dict) or "digest" not in mark:
                    return None
                columns = [PREFIX + task for task in mark["tasks"]]
                digest = digest_of(parquet.schema_arrow)
                for number in range(parquet.num_row_groups):
                    rows = parquet.read_row_group(number, columns=columns)
                    digest.update(np.stack([rows[name].to_numpy() for name in columns], axis=1).tobytes())
                return mark if digest.hexdigest() == mark["digest"] else None
        except (OSError, pa.ArrowException, ValueError, KeyError):
            return None

    @contextmanager
    def writer(self, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
        """Streams to a draft beside the file, which takes its place when the block ends well. Otherwise nothing is
        left, of folders that are new and empty neither."""
        filesystem = self._folder.filesystem
        parent, _, name = self._folder.path(self._name).rpartition("/")
        draft = f"{parent}/.{name}.{os.getpid()}.tmp"
        new = [at for at in (Path(parent), *Path(parent).parents) if self._folder.is_local and not at.exists()]
        try:
            if self._folder.is_local:
                make_folder(parent, _ARGUMENT, self.place)
            with (
                filesystem.open_output_stream(draft) as sink,
                pq.ParquetWriter(sink, schema, write_page_checksum=True) as writer,
            ):
                yield writer
            self._rename(draft)
        except BaseException as error:
            with suppress(OSError):  # what failed first is reported
                filesystem.delete_file(draft)
            with suppress(OSError):  # others are in it by now
                for folder in new:
                    folder.rmdir()
            if isinstance(error, OSError | pa.ArrowException):
                raise UserError(f"{self.place} cannot be written: {error}\nGive {_ARGUMENT} another place.") from error
            raise

    def _rename(self, draft: str) -> None:
        """Object stores copy what is renamed, and S3 copies no object above 5 GiB in one request, which is all that
        Arrow knows (S3FileSystem::CopyFile): such a draft is read and written once more."""
        filesystem, path = self._folder.filesystem, self._folder.path(self._name)
        if filesystem.type_name != "s3" or filesystem.get_file_info(draft).size <= _MOST_COPIED:
            filesystem.move(draft, path)
            return
        try:
            with filesystem.open_input_stream(draft) as source, filesystem.open_output_stream(path) as sink:
                shutil.copyfileobj(source, sink, _COPIED_AT_A_TIME)
        except BaseException:
            filesystem.delete_file(path)  # closing it has made an object of a part
            raise
        filesystem.delete_file(draft)


def digest_of(schema: pa.Schema) -> xxhash.xxh3_128:
    """Of the columns' names; predictions [R, T] of all row groups come after."""
    return xxhash.xxh3_128("\n".join(schema.names).encode("utf-8", "surrogateescape"))
