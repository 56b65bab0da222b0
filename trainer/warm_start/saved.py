"""What another run saved, read for a run of other sizes: a base, and what the links behind it put over it.

A run that resumes loads the same by `checkpointer`, whose plan wants equal sizes.
"""

from collections.abc import Collection
from types import TracebackType
from typing import Self

from torch import Tensor

from embeddings.tables import local_shards
from trainer.checkpoint import link_load
from trainer.checkpoint.chain import State
from trainer.checkpoint.regions import Regions


class Saved:
    """A context manager: leaving it closes the files.

    Attributes:
        unsound: names of tensors of which numbers were read that are NaN, infinite or far too large.
    """

    def __init__(self, state: State) -> None:
        self.unsound: set[str] = set()
        self._links = state.links
        self._base = Regions(state.base)
        end = state.links[-1] if state.links else None
        self._whole = {entry.name: tuple(entry.size) for entry in end.whole} if end else {}
        self._tensors: dict[str, Tensor] = {}  # whole ones of the last link, when they were asked for
        self._by_rows: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.__exit__(kind, error, trace)

    def __contains__(self, name: str) -> bool:
        return name in self._whole or name in self._base.names

    def size(self, name: str) -> tuple[int, ...]:
        return self._whole[name] if name in self._whole else self._base.size(name)

    def whole(self, name: str) -> Tensor:
        if name not in self._whole:
            return self._base.whole(name)
        if not self._tensors:
            self._tensors = dict(link_load.whole_tensors(self._links[-1], set(self._whole)))
        return self._tensors[name]

    def rows(self, name: str, target: Tensor, count: int) -> None:
        """Fills the first `count` rows, all that there were, of `target`, as far as this rank holds them.

        What links have of them comes with `put_links_over`.
        """
        if name in self._whole:  # a data-parallel table
            values = self.whole(name)
        else:
            values, self._by_rows[name] = None, target
        for shard, offsets in local_shards(target):
            known = min(len(shard), count - offsets[0])
            if known <= 0:
                continue
            if values is None:
                self._base.read(name, offsets, shard[:known])
            else:
                columns = [slice(at, at + size) for at, size in zip(offsets[1:], shard.shape[1:], strict=True)]
                shard[:known].copy_(values[(slice(offsets[0], offsets[0] + known), *columns)])

    def put_links_over(self) -> None:
        """Over all rows that were read, link by link."""
        self.unsound |= link_load.ChainLoad(self._links, self._by_rows).put(self._by_rows)

    def refused(self) -> Collection[str]:
        """Names of unsound tensors; what a link has put over was not among them."""
        return self.unsound | (set() if self._links else self._base.unsound)
