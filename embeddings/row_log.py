"""Which rows of this rank's table shards may have changed since some moment: those that training looked up.

Who copies or publishes rows reads the log here; what he does with them is his business. Marks are in
`embeddings.row_stamps`. Tables that are data-parallel are not in the log: all their rows change.

Training marks the rows it looks up. Whoever else writes rows calls `mark`. A *cut* ends a window: what is marked later
is after the cut. Marks, cuts and holds are the training thread's; readers may be used by any thread.
"""

import threading
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from embeddings.cpu_lookup import CpuLookup
from embeddings.kernels import groups_of
from embeddings.row_stamps import LAST, RowStamps
from embeddings.tables import local_shards

_EXACT_CUTS = 128  # of readers that are this many cuts apart, after a renumbering


class _Shard(NamedTuple):
    """Where a table shard is: the group, the table in it, the first of the group's rows, and the rows of the table."""

    group: int
    place: int
    start: int
    first_row: int
    rows: int


class Hold:
    """Keeps the tables' next update waiting until `release`, which any thread may call, and more than once.

    `with hold:` releases it even where a copy fails.
    """

    def __init__(self) -> None:
        self._released = threading.Event()

    def release(self) -> None:
        self._released.set()

    def wait(self) -> None:
        self._released.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class RowLog:
    """Marks in `model` from now on; one of a model.

    Attributes:
        cut: the number of the last cut, 0 at first.
        whole: the data-parallel tables.
    """

    def __init__(self, model: nn.Module) -> None:
        """model: sharded by `embeddings.sharding`."""
        self.cut = 0
        self._window = 1  # the number that rows are marked with
        self._numbers = {0: 0}  # a cut -> the number of the window that it ended
        self._renumberings = 0
        self._readers: list[Reader] = []
        self._lock = threading.Lock()
        self._holds: list[Hold] = []
        groups = list(groups_of(model))
        self._stamps = [RowStamps(group.emb_module) for group in groups]
        self._starts = [_starts([table.local_rows for table in group.config.embedding_tables]) for group in groups]
        self._shards, self.whole = self._find_shards(model, groups)
        self._lookups = [group.emb_module.forward for group in groups]
        for group, stamps in zip(groups, self._stamps, strict=True):
            _after_preparing(group.emb_module, partial(self._mark_bags, stamps))
        for lookup in self._lookups:
            if isinstance(lookup, CpuLookup):
                lookup.before_update = self._wait_for_holds

    def _find_shards(self, model: nn.Module, groups: list[Any]) -> tuple[dict[str, list[_Shard]], frozenset[str]]:
        """By table, in the order of its local shards; and the tables that have none anywhere."""
        held: dict[tuple[str, tuple[int, ...]], _Shard] = {}
        for number, group in enumerate(groups):
            for place, table in enumerate(group.config.embedding_tables):
                offsets = tuple(table.local_metadata.shard_offsets)
                shard = _Shard(number, place, self._starts[number][place], offsets[0], table.local_rows)
                held[table.name, offsets] = shard
        shards, whole = {}, set()
        for name, weight in model.state_dict().items():
            parts = name.split(".")
            if parts[-3:-2] != ["embedding_bags"]:
                continue
            if isinstance(weight, DTensor):
                shards[parts[-2]] = [held.pop((parts[-2], offsets)) for _, offsets in local_shards(weight)]
            else:
                whole.add(parts[-2])
        assert not held, held
        return shards, frozenset(whole)

    def take_cut(self) -> int:
        """The number of a new cut. Costs next to nothing, but about 15 ms for 26M rows once in 250 cuts."""
        with self._lock:
            if self._window >= LAST:
                self._renumber()
            self.cut += 1
            self._numbers[self.cut] = self._window
            self._window += 1
        return self.cut

    def _renumber(self) -> None:
        """Makes room for windows: of former cuts, only those that readers stand at are told apart from now on."""
        kept = sorted({self.cut, *(reader.since for reader in self._readers)})[-_EXACT_CUTS:]
        numbers = [self._number_of(cut) for cut in kept]
        self._renumberings += 1
        for stamps in self._stamps:
            stamps.renumber(numbers)
        self._numbers = {cut: number for number, cut in enumerate(kept)}
        self._window = len(kept)

    def _number_of(self, cut: int) -> int:
        """That of the cut or, if it isn't told apart any more, of one before it: its reader gets more rows."""
        return self._numbers[max((known for known in self._numbers if known <= cut), default=min(self._numbers))]

    def follow(self) -> "Reader":
        """A reader that begins at a cut made now."""
        reader = Reader(self, self.take_cut())
        with self._lock:
            self._readers.append(reader)
        return reader

    def _mark_bags(self, stamps: RowStamps, ids: Tensor, offsets: Tensor) -> None:
        stamps.mark_bags(ids, offsets, self._window)

    def mark(self, table: str, rows: Tensor) -> None:
        """Says that rows of `table` are about to be written, by someone else than its optimizer.

        Returns when no hold is on, as the tables' own updates begin then.

        Args:
            rows: int64, of the whole table, on the table's device; those of other ranks are ignored.
        """
        assert table in self._shards or table in self.whole, table
        self._wait_for_holds()
        for shard in self._shards.get(table, ()):
            self._stamps[shard.group].mark_rows(rows - shard.first_row, shard.start, shard.rows, self._window)

    def hold(self) -> Hold | None:
        """Lets no update of rows begin, from the next one on, until the hold is released; forward passes go on.

        None where kernels can't be held, as on CUDA: there, rows have to be copied before the next step.
        """
        if not all(isinstance(lookup, CpuLookup) for lookup in self._lookups):
            return None
        self._holds.append(Hold())
        return self._holds[-1]

    def _wait_for_holds(self) -> None:
        while self._holds:
            self._holds[-1].wait()
            self._holds.pop()

    def _changed(self, since: int) -> dict[str, list[Tensor]]:
        """A scan beside marks and cuts; one amid which the numbers changed their meaning is made again."""
        while True:
            with self._lock:
                number, renumberings = self._number_of(since), self._renumberings
            by_group = [s.newer_than(number, starts) for s, starts in zip(self._stamps, self._starts, strict=True)]
            with self._lock:
                if self._renumberings == renumberings:
                    break
        return {name: [by_group[at.group][at.place] for at in shards] for name, shards in self._shards.items()}


class Reader:
    """Follows a log from cut to cut.

    Attributes:
        since: its last cut.
    """

    def __init__(self, log: RowLog, since: int) -> None:
        self.since = since
        self._log = log

    def changed(self) -> dict[str, list[Tensor]]:
        """Rows that were marked since the reader's last cut, by table, for each shard that this rank holds of it.

        Shards are in the order of `embeddings.tables.local_shards`; rows are counted from the shard's first one: int64,
        sorted, on the shard's device. A superset: rows marked amid the call may be there or not, and a reader that fell
        behind may get older ones. On CUDA the call waits for what the current stream was given before.
        """
        return self._log._changed(self.since)

    def advance(self, cut: int) -> None:
        """What happened up to `cut` needs not be given again."""
        with self._log._lock:
            assert self.since <= cut <= self._log.cut, (self.since, cut, self._log.cut)
            self.since = cut

    def close(self) -> None:
        """Nothing has to be kept for this reader any more."""
        with self._log._lock:
            if self in self._log._readers:
                self._log._readers.remove(self)


def _starts(rows: list[int]) -> list[int]:
    """Where each table begins in the rows of all."""
    return [0, *accumulate(rows)][:-1]


def _after_preparing(kernels: Any, mark: Callable[[Tensor, Tensor], None]) -> None:
    """Has `mark` called with the IDs and offsets of each lookup that can be trained.

    All lookups go through `prepare_inputs`, whoever calls them, and it is the last to change IDs: invalid ones.
    """
    prepare = kernels.prepare_inputs

    def prepared(*arguments: Any, **named: Any) -> Any:
        inputs = prepare(*arguments, **named)
        if torch.is_grad_enabled():
            mark(inputs[0], inputs[1])
        return inputs

    kernels.prepare_inputs = prepared
