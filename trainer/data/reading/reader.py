"""The batches of one rank: the sample order's rows, read ahead by threads.

The order is in `order`, decoding in `decode`, the threads in `prefetch`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from configs.errors import UserError
from configs.schema import DataConfig, TaskConfig
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.data.columns.block import Block
from trainer.data.dataset.faults import DataError, StorageUnavailable, until_answered
from trainer.data.dataset.manifest import Manifest
from trainer.data.reading.assemble import Batches, assemble
from trainer.data.reading.batch import Batch
from trainer.data.reading.buffers import Buffers
from trainer.data.reading.chunks import Chunk, Layout, chunks
from trainer.data.reading.decode import Decoder
from trainer.data.reading.dropped import DroppedIds
from trainer.data.reading.order import lanes_of, sample_order
from trainer.data.reading.origin import Largest, largest, origin
from trainer.data.reading.prefetch import Prefetcher
from trainer.data.reading.quarantine import Quarantine, Quarantined

_SECOND_TRY_AFTER_S = 0.2  # of a row group that looks damaged: what was damaged may have been its transfer
_REMOTE_READS = 4  # row groups asked of an object store at a time, beyond those being decoded


class Reader:
    """Reads one rank's part of a data set.

    Attributes:
        manifest: of the data set.
        steps_per_epoch: the same on all ranks.
        local_batch_size: rows of every batch, padding included, the same on all ranks.
        wait_seconds: how long the consumer has waited for batches in all.
        on_wait: called now and then while it does; of iterators that are made from then on.
    """

    def __init__(
        self,
        manifest: Manifest,
        data: DataConfig,
        features: FeatureTransforms,
        tasks: Mapping[str, TaskConfig],
        seed: int,
        rank: int,
        world_size: int,
        shuffle: bool = True,
        quarantined: Sequence[Quarantined] = (),
        group_column: str | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            shuffle: False reads in the order of the files, as evaluation does, and gives rows no keys.
            quarantined: row groups that are skipped unread, as `quarantined` of an earlier reader says.
            group_column: gives batches their groups.

        Raises:
            UserError: there are more workers than lanes.
        """
        if world_size > data.lanes:
            raise UserError(
                f"{world_size} workers cannot share data.lanes={data.lanes}\nSet launch.workers to at most data.lanes."
            )
        assert data.global_batch_size % data.lanes == 0, "configs.checks lets only multiples through"
        self._data = data
        self._lanes_of = lambda rank: lanes_of(rank, world_size, data.lanes)
        self._decoder = Decoder(manifest, data, features, tasks, group_column)
        self._order_of = lambda manifest: sample_order(manifest, data, seed, shuffle)
        self._order = self._order_of(manifest)
        self._layout = Layout(
            names=features.sparse_names,
            weighted=bool(features.weighted_names),
            lanes=tuple(self._lanes_of(rank)),
            slots=-(-data.lanes // world_size),
            lane_batch_size=data.global_batch_size // data.lanes,
            dense_width=features.dense_width,
            tasks=len(tasks),
            grouped=group_column is not None,
            seed=seed if shuffle else None,
        )
        self.manifest = manifest
        self._buffers = Buffers()
        self._bytes_per_row = max(1, sum(file.bytes for file in manifest.files) // max(1, manifest.rows))
        self.local_batch_size = self._layout.local_batch_size
        self.wait_seconds = 0.0
        self.on_wait: Callable[[], None] = lambda: None
        self._quarantine = Quarantine(data, manifest.rows, quarantined)

    @property
    def dropped(self) -> DroppedIds:
        """IDs that the features' transforms dropped, in what this rank has read so far."""
        return self._decoder.dropped

    @property
    def steps_per_epoch(self) -> int:
        return self._order.steps

    def ends_at(self, step: int) -> bool:
        """Whether an epoch ends after `step` steps, or, where the data set is followed, a partition."""
        return step in self._order.segment_ends if self._data.follow else step == self._order.steps

    def extend(self, manifest: Manifest) -> None:
        """Takes in new partitions, on all ranks at the same step; iterators that are open do not see them."""
        assert manifest.starts_with(self.manifest), "a manifest that is followed only grows at its end"
        self.manifest = self._decoder.manifest = manifest
        self._order = self._order_of(manifest)
        self._quarantine.rows = manifest.rows

    @property
    def quarantined(self) -> list[Quarantined]:
        """The row groups that were skipped, the ones given at the start among them."""
        return self._quarantine.entries

    def skip(self, entries: Sequence[Quarantined]) -> None:
        """Takes in what other ranks have skipped.

        Raises:
            DataError: together it is more than data.max_quarantined_fraction.
        """
        self._quarantine.add_all(entries)

    @property
    def skipped_rows(self) -> int:
        """Rows that an epoch of this rank's lanes lacks, as far as is known."""
        if not self._quarantine.entries:
            return 0
        row_groups = self.manifest.row_groups
        lanes = ((segment, lane) for segment in range(len(self._order.segments)) for lane in self._layout.lanes)
        picks = (self._order.picks(0, segment, lane, 0, self.manifest.rows) for segment, lane in lanes)
        ranges = (part for lane in picks for pick in lane for part in pick.ranges)
        return sum(part.stop - part.start for part in ranges if row_groups[part.row_group] in self._quarantine)

    def origin(self, epoch: int, step: int, ranks: Sequence[int]) -> str:
        """The files and row groups of the rows that these ranks trained in a step of an epoch, in words."""
        lanes = [lane for rank in ranks for lane in self._lanes_of(rank)]
        return origin(self._order, self.manifest, epoch, step, lanes)

    def largest(self, epoch: int, step: int) -> Largest | None:
        """Reads this rank's batch of a step again."""
        batches = self.batches(epoch, step)
        try:
            return largest(next(batches), self._order, self._layout)
        finally:
            batches.close()

    def where(self, found: Largest) -> str:
        """`1e+25 in column watch_time of day=3/part-00002.parquet, row group 0, row 300`."""
        group = self.manifest.row_groups[found.row_group]
        column = self._decoder.column(found.place)
        return f"{found.value:.4g} in column {column} of {group.file.path}, row group {group.place}, row {found.row}"

    def batches(self, epoch: int, step: int = 0, epochs: int = 0) -> BatchIterator:
        """The batches from `step` of an epoch on, to its end, or to the end of the last of `epochs`.

        Reading ahead begins at once, in threads that `close` stops. It does not stop between epochs, so that only the
        first one waits for its first windows.
        """
        prefetcher = Prefetcher(
            self._chunks(epoch, step, epochs),
            load=self._load,
            give_up=self._give_up,
            assemble=lambda chunk, block: assemble(chunk, self._layout, block, self._buffers),
            estimate=lambda number: self.manifest.row_groups[number].rows * self._bytes_per_row,
            threads=self._data.threads + (0 if self._decoder.is_local else _REMOTE_READS),
            budget=self._data.prefetch_mib << 20,
            timeout_s=self._data.read_timeout_s,
            on_wait=self.on_wait,
        )
        return BatchIterator(self, prefetcher, self._layout.names)

    def _chunks(self, epoch: int, step: int, epochs: int) -> Iterator[Chunk]:
        yield from chunks(self._order, self._layout, epoch, step)
        for later in range(epoch + 1, epochs):
            yield from chunks(self._order, self._layout, later, 0)

    def _load(self, number: int, again: Callable[[], None]) -> Block:
        if self.manifest.row_groups[number] in self._quarantine:
            return self._decoder.empty(number)

        def read() -> Block:
            return until_answered(lambda: self._decoder(number), self._data.read_timeout_s, again)

        try:
            return read()
        except DataError:
            time.sleep(_SECOND_TRY_AFTER_S)
        again()
        try:
            return read()
        except DataError as error:
            return self._skip(number, error)

    def _give_up(self, number: int, seconds: float) -> Block:
        remedy = "Check the file system, or raise data.read_timeout_s."
        error = StorageUnavailable(f"{self._decoder.where(number)} was not read within {seconds:g} s, twice\n{remedy}")
        return self._skip(number, error)

    def _skip(self, number: int, error: DataError | StorageUnavailable) -> Block:
        self._quarantine.add(self.manifest.row_groups[number], error)
        return self._decoder.empty(number)


class BatchIterator(Iterator[Batch]):
    """Batches in order; `close` stops the threads that read ahead, and so does dropping it."""

    def __init__(self, reader: Reader, prefetcher: Prefetcher, names: Sequence[str]) -> None:
        self._reader, self._prefetcher, self._names = reader, prefetcher, names
        self._batches: Batches | None = None
        self._next = 0

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches, self._next = self._next_chunk(), 0
        batch = self._batches.batch(self._next, self._names)
        self._next += 1
        if self._next == len(self._batches):
            self._batches = None
        return batch

    def _next_chunk(self) -> Batches:
        waited = self._prefetcher.wait_seconds
        try:
            return next(self._prefetcher)
        except BaseException:  # the end, a mistake in the data, or Ctrl-C: nobody asks for another batch
            self._prefetcher.close()
            raise
        finally:
            self._reader.wait_seconds += self._prefetcher.wait_seconds - waited

    def close(self) -> None:
        """Stops the threads."""
        self._prefetcher.close()

    def __del__(self) -> None:
        self._prefetcher.close()
