"""Puts links back over a base that was loaded: rows in the order in which they were trained, then what is whole.

A restore should take little longer than that of a base of the same state. So files are mapped, several threads work,
each on other tensors, and what can be is done while the base is still being loaded. Files were checked before.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embeddings.tables import local_shards
from trainer.checkpoint.link_files import Link, RowsEntry, file_bytes
from trainer.checkpoint.values import is_sound
from trainer.run.saved_names import is_weight

_Content = npt.NDArray[np.uint8]
_LARGEST_POOL = 4


class _Rows(NamedTuple):
    """Rows of one tensor in one link."""

    rows: Tensor  # [n] int64, numbers in the whole tensor, ascending
    values: Tensor  # [n, columns], or [n]
    column: int


class ChainLoad:
    """A chain's rows and the whole tensors of its last link, on their way over a base.

    What needs no base is done in threads from the start: pages are read, numbers looked at.
    """

    def __init__(self, links: Sequence[Link], names: Collection[str]) -> None:
        """names: of the tensors that are wanted."""
        self._links, self._names = links, set(names)
        self._pool = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), _LARGEST_POOL))
        self._changes = self._pool.submit(self._mapped)
        self._unsound = self._pool.submit(self._looked_at)

    def _mapped(self) -> dict[str, list[_Rows]]:
        """By tensor, in the order in which they were trained."""
        found: dict[str, list[_Rows]] = defaultdict(list)
        for link in self._links:
            mapped = cache(lambda file, link=link: file_bytes(link.folder, file))
            for entry in link.rows:
                if entry.name in self._names:
                    found[entry.name].append(_rows(mapped(entry.file), entry))
        return found

    def _looked_at(self) -> set[str]:
        return {name for name, changes in self._changes.result().items() if not _sound(name, changes)}

    def put(self, state: Mapping[str, Tensor]) -> set[str]:
        """Over what `state` has, in place; returns names of tensors with numbers that are not sound."""
        with self._pool as pool:
            list(pool.map(lambda change: _put_all(state[change[0]], change[1]), self._changes.result().items()))
            unsound = self._unsound.result()
        for name, value in whole_tensors(self._links[-1], self._names) if self._links else ():
            state[name].copy_(value)
            if not is_sound(value, as_weights=is_weight(name)):
                unsound.add(name)
        return unsound


def whole_tensors(link: Link, names: set[str]) -> Iterator[tuple[str, Tensor]]:
    """Those of a link's whole tensors that are named."""
    mapped = cache(lambda file: file_bytes(link.folder, file))
    for entry in link.whole:
        if entry.name in names:
            yield entry.name, _tensor(mapped(entry.file), entry.at, entry.dtype, entry.size)


def _rows(file: _Content, entry: RowsEntry) -> _Rows:
    size = [entry.count, entry.width] if entry.width else [entry.count]
    rows = _tensor(file, entry.rows_at, "int64", [entry.count])
    return _Rows(rows, _tensor(file, entry.values_at, entry.dtype, size), entry.column)


def _sound(name: str, changes: Sequence[_Rows]) -> bool:
    return all(is_sound(change.values, as_weights=is_weight(name)) for change in changes)


@torch.no_grad()
def _put_all(target: Tensor, changes: Sequence[_Rows]) -> None:
    """In the order in which they were trained."""
    shards = list(local_shards(target))
    for change in changes:
        for shard, offsets in shards:
            _put(shard, offsets, change)


def _put(shard: Tensor, offsets: tuple[int, ...], change: _Rows) -> None:
    """The rows and columns of a shard that are in a change."""
    rows, values, column = change
    first, last = torch.searchsorted(rows, torch.tensor([offsets[0], offsets[0] + len(shard)])).tolist()
    if first == last:
        return
    chosen = (rows[first:last] - offsets[0]).to(shard.device)
    inside = values[first:last]
    if shard.dim() == 1:
        shard.index_copy_(0, chosen, inside.to(shard.device))
        return
    left, right = max(column, offsets[1]), min(column + values.shape[1], offsets[1] + shard.shape[1])
    if left < right:
        columns = shard[:, left - offsets[1] : right - offsets[1]]
        columns.index_copy_(0, chosen, inside[:, left - column : right - column].to(shard.device))


def _tensor(file: _Content, at: int, dtype: str, size: Sequence[int]) -> Tensor:
    kind = getattr(torch, dtype)
    assert isinstance(kind, torch.dtype), dtype
    count = int(np.prod(size, dtype=np.int64))
    return torch.from_numpy(file[at : at + count * kind.itemsize]).view(kind).view(list(size))
