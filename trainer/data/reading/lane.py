"""The rows that a chunk takes from one lane, column by column, in the order of training.

A column is viewed where it can be, copied where rows come from several row groups, and permuted where there are
windows. R rows, N IDs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import fbgemm_gpu  # noqa: F401  registers torch.ops.fbgemm
import numpy as np
import numpy.typing as npt
import torch

from embeddings.features.bags import Bags
from trainer.data.columns.block import Block
from trainer.data.reading.order import Indices, Pick

Lengths = npt.NDArray[np.int32]


class LaneRows:
    """Rows of a lane.

    Attributes:
        rows: how many.
    """

    def __init__(self, picks: Sequence[Pick], block: Callable[[int], Block]) -> None:
        """Finds the rows of `picks` in their row groups' blocks."""
        self._parts = [block(part.row_group).narrow(part.start, part.stop) for pick in picks for part in pick.ranges]
        self._index = _joined_index(picks)
        self.rows = sum(len(part) for part in self._parts) if self._index is None else len(self._index)
        self._lengths: dict[int, Lengths] = {}  # of ragged features, before the permutation

    def numbers(self, name: str) -> npt.NDArray[np.float32]:
        """The block's matrix `name` [R, ...]."""
        return self._permute([getattr(part, name) for part in self._parts])

    def groups(self) -> npt.NDArray[np.int64]:
        """The rows' groups [R]."""
        return self._permute([part.groups for part in self._parts if part.groups is not None])

    def lengths(self, feature: int) -> Lengths | None:
        """Lengths [R] of the bags; None if each is one."""
        bags = self._bags(feature)
        if all(part.is_scalar for part in bags):
            return None
        parts = [part.lengths for part in bags]
        if self._index is not None:
            self._lengths[feature] = np.concatenate(parts)
        return self._permute(parts)

    def ids(self, feature: int, weighted: bool) -> tuple[np.ndarray, np.ndarray]:
        """IDs [N] of a feature whose lengths were asked for before, and their weights, if any are wanted."""
        bags, lengths = self._bags(feature), self._lengths.pop(feature, None)
        values = [part.values for part in bags]
        weights = [part.all_weights for part in bags] if weighted else None
        if self._index is not None and lengths is not None:
            return _permute_bags(self._index, lengths, values, weights)
        permuted = self._permute(values)
        return permuted, permuted if weights is None else self._permute(weights)

    def _bags(self, feature: int) -> list[Bags]:
        return [part.bags[feature] for part in self._parts]

    def _permute(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Rows of all parts in the order of training."""
        if self._index is None:
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        rows = np.concatenate(parts)  # even of one part: the copy brings it into the cache, where it is then permuted
        out = np.empty((len(self._index), *rows.shape[1:]), rows.dtype)
        return rows.take(self._index, axis=0, out=out, mode="clip")  # "raise" would copy `out` once more


def _joined_index(picks: Sequence[Pick]) -> Indices | None:
    """One index into the rows of all picks; None if the rows are taken as they come."""
    if not picks or picks[0].index is None:
        return None
    parts, start = [], 0
    for pick in picks:
        assert pick.index is not None, "all picks of a lane have an index, or none"
        parts.append(pick.index + start if start else pick.index)
        start += sum(part.stop - part.start for part in pick.ranges)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _permute_bags(
    index: Indices, lengths: Lengths, values: Sequence[np.ndarray], weights: Sequence[np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The bags that `index` names, end to end. FBGEMM copies whole bags; NumPy would need an index for every ID."""
    _, permuted, permuted_weights = torch.ops.fbgemm.permute_1D_sparse_data(
        torch.from_numpy(index.astype(np.int32)),
        torch.from_numpy(lengths),
        torch.from_numpy(np.concatenate(values)),
        None if weights is None else torch.from_numpy(np.concatenate(weights)),
    )
    return permuted.numpy(), permuted.numpy() if weights is None else permuted_weights.numpy()
