"""One number a row for the tables of a group of kernels: the window of the row log in which it was last marked.

What windows and cuts are is `embeddings.row_log`'s business; here numbers are written, found and made smaller.

Shapes: B batch, F features, N IDs, R rows of the group's tables, one table after the other.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
from torch import Tensor

LAST = 255
"""The largest number of a row; 0 is a row that was never marked."""
_WORD = 8  # rows whose numbers are compared with none at a time
_BLOCK = 2**18  # rows: their numbers, and what is computed of them, stay in the cache of a core
_BLOCK_ON_DEVICE = 2**26


class RowStamps:
    """uint8 [R], in one piece, so that one call marks a whole batch."""

    def __init__(self, kernels: SplitTableBatchedEmbeddingBagsCodegen) -> None:
        rows = int(kernels.total_hash_size)
        self._starts = cast(Tensor, kernels.hash_size_cumsum)  # int64 [F + 1]: where the table of each feature begins
        self._spare = rows  # a place for what is not to be marked: then nobody has to know how much that is
        size = -(-(rows + 1) // _WORD) * _WORD
        self._numbers = torch.zeros(size, dtype=torch.uint8, device=self._starts.device)

    def mark_bags(self, ids: Tensor, offsets: Tensor, number: int) -> None:
        """IDs [N] and bags' offsets [F * B + 1], as the kernels get them. Asks a GPU for nothing."""
        features = len(self._starts) - 1
        if len(offsets) <= features:  # no rows in the batch
            return
        counts = offsets[:: (len(offsets) - 1) // features].diff()
        starts = self._starts[:-1].repeat_interleave(counts, output_size=len(ids))
        self._numbers.scatter_(0, starts.add_(ids), number)

    def mark_rows(self, rows: Tensor, start: int, size: int, number: int) -> None:
        """Row numbers of a table that begins at `start`; those outside [0, size) are ignored."""
        inside = (rows >= 0) & (rows < size)
        self._numbers.scatter_(0, torch.where(inside, rows + start, self._spare), number)

    def newer_than(self, number: int, starts: Sequence[int]) -> list[Tensor]:
        """Rows with larger numbers, by table, from each table's first row on; int64, sorted, on the tables' device."""
        found = self._on_device(number) if self._numbers.is_cuda else torch.from_numpy(self._in_words(number))
        bounds = torch.tensor([*starts, self._spare], device=found.device)
        places = torch.searchsorted(found, bounds).tolist()
        return [found[places[i] : places[i + 1]] - start for i, start in enumerate(starts)]

    def _in_words(self, number: int) -> npt.NDArray[np.int64]:
        """On a CPU: few rows are newer, so that words of eight rows without any are passed over."""
        numbers, found = self._numbers.numpy(), []
        for first in range(0, len(numbers), _BLOCK):
            words = (numbers[first : first + _BLOCK] > number).view(np.uint64)
            chosen = np.flatnonzero(words != 0)
            newer = np.flatnonzero(words[chosen].view(np.bool_))
            found.append((chosen * _WORD + first)[newer // _WORD] + newer % _WORD)
        return np.concatenate(found)

    def _on_device(self, number: int) -> Tensor:
        blocks = enumerate(self._numbers.split(_BLOCK_ON_DEVICE))
        return torch.cat([(block > number).nonzero().squeeze(1) + i * _BLOCK_ON_DEVICE for i, block in blocks])

    def renumber(self, kept: Sequence[int]) -> None:
        """A row's new number is how many of `kept` are smaller than its old one."""
        for block in self._numbers.split(_BLOCK_ON_DEVICE if self._numbers.is_cuda else _BLOCK):
            fewer = torch.zeros_like(block)
            for number in kept:
                fewer += block > number
            block.copy_(fewer)
