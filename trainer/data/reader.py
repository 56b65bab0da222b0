"""The batches of one rank: the sample order's rows, read ahead by threads.

The order is in `trainer.data.order`, decoding in `trainer.data.decode`, the threads in `trainer.data.prefetch`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from configs.errors import UserError
from configs.schema import DataConfig, TaskConfig
from embeddings.features import FeatureTransforms
from trainer.data.assemble import Batches, assemble
from trainer.data.batch import Batch
from trainer.data.block import Block
from trainer.data.buffers import Buffers
from trainer.data.decode import Decoder
from trainer.data.manifest import Manifest
from trainer.data.order import Order, lanes_of
from trainer.data.plan import Chunk, Layout, plan
from trainer.data.prefetch import Prefetcher
from trainer.data.quarantine import Quarantine, Quarantined
from trainer.data.source import DataError

_PAUSES_S = (0.2,)  # before a row group is tried again
_REMOTE_PAUSES_S = (0.2, 1.0, 5.0)
ENDLESS = 2**62  # steps of an epoch that has no end
_ASK_EVERY_S = 5.0  # whether there are new partitions
_REMOTE_READS = 4  # row groups asked of an object store at a time, beyond those being decoded


class Reader:
    """Reads one rank's part of a data set.

    Attributes:
        manifest: of the data set.
        steps_per_epoch: the same on all ranks; `ENDLESS` where the data set is followed.
        local_batch_size: rows of every batch, padding included, the same on all ranks.
        wait_seconds: how long the consumer has waited for batches in all.
        rows_read: rows in the batches that were given out, padding not counted.
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
        newer: Callable[[], Manifest | None] | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            shuffle: False reads in the order of the files, as evaluation does.
            quarantined: row groups that are left out unread, as `quarantined` of an earlier reader says.
            newer: the manifest as it is by now, the same on all ranks sooner or later; it must start with `manifest`.
                With it an epoch never ends: after the last partition its batches wait for new ones.

        Raises:
            UserError: there are more workers than lanes.
        """
        if world_size > data.lanes:
            raise UserError(
                f"{world_size} workers cannot share data.lanes={data.lanes}\nSet launch.workers to at most data.lanes."
            )
        assert data.global_batch_size % data.lanes == 0, "configs.checks lets only multiples through"
        self._data = data
        self._decoder = Decoder(manifest, data, features, tasks)
        self._newer = newer
        self._order_of = lambda manifest: sample_order(manifest, data, seed, shuffle)
        self._order = self._order_of(manifest)
        self._ask_again = 0.0
        self._pauses = _PAUSES_S if self._decoder.is_local else _REMOTE_PAUSES_S
        self._layout = Layout(
            names=features.sparse_names,
            weighted=bool(features.weighted_names),
            lanes=tuple(lanes_of(rank, world_size, data.lanes)),
            slots=-(-data.lanes // world_size),
            lane_batch_size=data.global_batch_size // data.lanes,
            dense_width=features.dense_width,
            tasks=len(tasks),
        )
        self.manifest = manifest
        self._buffers = Buffers()
        self._bytes_per_row = max(1, sum(file.bytes for file in manifest.files) // max(1, manifest.rows))
        self.steps_per_epoch = self._order.steps if newer is None else ENDLESS
        self.local_batch_size = self._layout.local_batch_size
        self.wait_seconds = 0.0
        self.rows_read = 0
        self._quarantine = Quarantine(data, manifest.rows, quarantined)

    @property
    def quarantined(self) -> list[Quarantined]:
        """The row groups that were left out, the ones given at the start among them."""
        return self._quarantine.entries

    def batches(self, epoch: int, step: int = 0) -> BatchIterator:
        """The batches of an epoch from `step` on. Reading ahead begins at once, in threads that `close` stops."""
        prefetcher = Prefetcher(
            self._chunks(epoch, step),
            load=self._load,
            give_up=self._give_up,
            assemble=lambda chunk, block: assemble(chunk, self._layout, block, self._buffers),
            estimate=lambda number: self.manifest.row_groups[number].rows * self._bytes_per_row,
            threads=self._data.threads + (0 if self._decoder.is_local else _REMOTE_READS),
            budget=self._data.prefetch_mib << 20,
            timeout_s=self._data.read_timeout_s,
        )
        return BatchIterator(self, prefetcher, self._layout.names)

    def _chunks(self, epoch: int, step: int) -> Iterator[Chunk | None]:
        """What to read; None while the data set that is followed has nothing new."""
        while True:
            yield from plan(self._order, self._layout, epoch, step)
            if self._newer is None:
                return
            step = max(step, self._order.steps)
            while not self._grow(self._newer):
                yield None

    def _grow(self, newer: Callable[[], Manifest | None]) -> bool:
        """Takes in the partitions that are new, if there are any; asks every few seconds at most."""
        if time.monotonic() < self._ask_again:
            return False
        self._ask_again = time.monotonic() + _ASK_EVERY_S
        manifest = newer()
        if manifest is None or len(manifest.files) == len(self.manifest.files):
            return False
        assert manifest.starts_with(self.manifest), "a manifest that is followed only grows at its end"
        self.manifest = self._decoder.manifest = manifest
        self._order = self._order_of(manifest)
        return True

    def _load(self, number: int) -> Block:
        if self.manifest.row_groups[number] in self._quarantine:
            return self._decoder.empty(number)
        for pause in self._pauses:
            try:
                return self._decoder(number)
            except DataError:
                time.sleep(pause)
        try:
            return self._decoder(number)
        except DataError as error:
            return self._leave_out(number, error)

    def _give_up(self, number: int, seconds: float) -> Block:
        remedy = "Check the file system, or raise data.read_timeout_s."
        error = DataError(f"{self._decoder.where(number)} was not read within {seconds:g} s, twice\n{remedy}")
        return self._leave_out(number, error)

    def _leave_out(self, number: int, error: DataError) -> Block:
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
            batches = next(self._prefetcher)
        except BaseException:  # the end, a mistake in the data, or Ctrl-C: nobody asks for another batch
            self._prefetcher.close()
            raise
        finally:
            self._reader.wait_seconds += self._prefetcher.wait_seconds - waited
        self._reader.rows_read += batches.rows
        return batches

    def close(self) -> None:
        """Stops the threads."""
        self._prefetcher.close()

    def __del__(self) -> None:
        self._prefetcher.close()


def sample_order(manifest: Manifest, data: DataConfig, seed: int, shuffle: bool) -> Order:
    """The order that a config gives to the rows of a manifest."""
    shuffle = shuffle and data.order != "sequential"
    return Order(
        segments=manifest.segments(data.order == "by_partition"),
        seed=seed,
        lanes=data.lanes,
        lane_batch_size=data.global_batch_size // data.lanes,
        window=data.shuffle_window if shuffle else 0,
        permute_row_groups=shuffle,
    )
