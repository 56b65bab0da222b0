"""Transformed columns into the tensors that a bundle's program takes, checked first: the program itself checks nothing.

Order of the inputs: for every group of tables values [N], lengths [B, F] and, if weighted, weights [N]; then dense
[B, D] if there are dense features. B rows, F features of the group, N IDs of all of them, row by row and in a row
feature by feature: the sums of a row's bags then lie side by side, as the top wants them.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embeddings.features.arrow import one_each
from embeddings.features.bags import Bags
from embeddings.features.feature_transforms import Columns
from trainer.serving.signature import Group


def program_inputs(columns: Columns, groups: Sequence[Group], dense_width: int) -> list[Tensor]:
    """The program's inputs for B rows, B at least 1.

    Raises:
        ValueError: shapes do not fit each other, or an ID lies outside its table.
    """
    batch = len(columns.dense)
    inputs = [torch.from_numpy(array) for group in groups for array in group_inputs(columns, group, batch)]
    if columns.dense.shape != (batch, dense_width) or columns.dense.dtype != np.float32:
        raise ValueError(f"dense is {columns.dense.dtype}{columns.dense.shape}, not float32 {(batch, dense_width)}")
    if dense_width:
        inputs.append(torch.from_numpy(np.ascontiguousarray(columns.dense)))
    return inputs


def group_inputs(columns: Columns, group: Group, batch: int) -> list[npt.NDArray]:
    """Values, lengths [B, F] and, if weighted, weights of one group. ValueError: see `program_inputs`."""
    bags = [columns.sparse[name] for name in group.features]
    if all(one_each(bag.lengths) for bag in bags):
        return _single_ids(group, bags, batch)
    values, lengths, *weights = flat_bags(group, bags, [batch] * len(bags))
    lengths = lengths.reshape(len(bags), batch)
    order = slice(None) if batch == 1 else _row_by_row(lengths)
    return [values[order], np.ascontiguousarray(lengths.T), *(one[order] for one in weights)]


def _single_ids(group: Group, bags: Sequence[Bags], batch: int) -> list[npt.NDArray]:
    """The same of bags of one ID each, as most are: it takes half the time at one row."""
    arrays, (starts, ends) = [bag.values for bag in bags], _bounds(group.first_rows, group.rows)
    if {*map(len, bags), *map(len, arrays)} != {batch}:
        _refuse_rows(group, bags, [batch] * len(bags))
    values = np.concatenate(arrays).reshape(len(bags), batch)
    if (values.view(np.uint64) >= ends[:, None]).any():  # a negative one is very large
        _refuse_outside(group, bags)
    by_row = np.empty((batch, len(bags)), np.int64)
    np.add(values.T, starts, out=by_row)
    inputs: list[npt.NDArray] = [by_row.reshape(-1), np.ones(by_row.shape, np.int32)]
    return [*inputs, _weights(group, bags).reshape(len(bags), batch).T.reshape(-1)] if group.weighted else inputs


def flat_bags(group: Group, bags: Sequence[Bags], sizes: Sequence[int]) -> list[npt.NDArray]:
    """Values [N], lengths [U] and, if weighted, weights [N] of a group's bags, feature by feature.

    Args:
        bags: of each feature.
        sizes: how many there must be of each, at least 1.

    Raises:
        ValueError: see `program_inputs`.
    """
    if [*map(len, bags)] != sizes:
        _refuse_rows(group, bags, sizes)
    counts = [len(bag.values) for bag in bags]
    lengths = np.concatenate([bag.lengths for bag in bags]).astype(np.int32, copy=False)
    found = np.add.reduceat(lengths, [0, *accumulate(sizes[:-1])], dtype=np.int64).tolist()
    if found != counts or lengths.min() < 0:
        _refuse_lengths(group, bags)
    starts, ends = _bounds(group.first_rows, group.rows)
    values = np.concatenate([bag.values for bag in bags])
    if (values.view(np.uint64) >= np.repeat(ends, counts)).any():
        _refuse_outside(group, bags)
    inputs: list[npt.NDArray] = [values + np.repeat(starts, counts), lengths]
    return [*inputs, _weights(group, bags)] if group.weighted else inputs


def _weights(group: Group, bags: Sequence[Bags]) -> npt.NDArray[np.float32]:
    """[N], feature by feature."""
    for name, bag in zip(group.features, bags, strict=True):
        if bag.weights is not None and bag.weights.shape != bag.values.shape:
            raise ValueError(f"{name}: {bag.weights.shape} weights for {len(bag.values)} IDs")
    return np.concatenate([bag.all_weights for bag in bags])


@lru_cache(maxsize=256)
def _bounds(first_rows: tuple[int, ...], rows: tuple[int, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Both as arrays [F], which take longer to make than a row takes to check."""
    return np.array(first_rows, np.int64), np.array(rows, np.uint64)


def _row_by_row(lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Where in IDs that come feature by feature those lie that come row by row. lengths: [F, B]."""
    ends = np.cumsum(lengths, dtype=np.int64).reshape(lengths.shape)
    starts, counts = (ends - lengths).T.reshape(-1), lengths.T.reshape(-1)
    shift = starts - (np.cumsum(counts, dtype=np.int64) - counts)
    return np.arange(counts.sum(), dtype=np.int64) + np.repeat(shift, counts)


def _refuse_rows(group: Group, bags: Sequence[Bags], sizes: Sequence[int]) -> None:
    for name, bag, rows in zip(group.features, bags, sizes, strict=True):
        if len(bag) != rows or (bag.is_scalar and len(bag.values) != rows):
            raise ValueError(f"{name}: lengths {bag.lengths.shape} do not fit {rows} rows of {len(bag.values)} IDs")


def _refuse_lengths(group: Group, bags: Sequence[Bags]) -> None:
    for name, bag in zip(group.features, bags, strict=True):
        if bag.lengths.sum() != len(bag.values) or bag.lengths.min() < 0:
            raise ValueError(f"{name}: its lengths do not fit its number of IDs")


def _refuse_outside(group: Group, bags: Sequence[Bags]) -> None:
    for name, bag, rows in zip(group.features, bags, group.rows, strict=True):
        if len(bag.values) and not 0 <= bag.values.min() <= bag.values.max() < rows:
            raise ValueError(f"{name}: IDs {bag.values.min()} to {bag.values.max()} in a table of {rows} rows")
