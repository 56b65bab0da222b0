"""Transformed columns into the tensors that a bundle's program takes, checked first: the program itself checks nothing.

Order of the inputs: for every group of tables values [N], lengths [B, F] and, if weighted, weights [N]; then dense
[B, D] if there are dense features. B rows, F features of the group, N IDs of all of them, row by row and in a row
feature by feature: the sums of a row's bags then lie side by side, as the top wants them.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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
    for name, bag in zip(group.features, bags, strict=True):
        _check_shapes(name, bag, batch)
    starts, ends = _bounds(group.first_rows, group.rows)
    if all(bag.is_scalar for bag in bags):
        values = np.concatenate([bag.values for bag in bags]).reshape(len(bags), batch)
        if (values.view(np.uint64) >= ends[:, None]).any():  # a negative one is very large
            _refuse_outside(group, bags)
        by_row = np.empty((batch, len(bags)), np.int64)
        np.add(values.T, starts, out=by_row)
        inputs: list[npt.NDArray] = [by_row.reshape(-1), np.ones(by_row.shape, np.int32)]
        order = None
    else:
        lengths = np.stack([bag.lengths for bag in bags]).astype(np.int32, copy=False)
        counts = [len(bag.values) for bag in bags]
        is_wrong = (lengths.sum(axis=1) != counts) | (lengths < 0).any(axis=1)
        if is_wrong.any():
            raise ValueError(f"{group.features[int(np.argmax(is_wrong))]}: its lengths do not fit its number of IDs")
        values = np.concatenate([bag.values for bag in bags])
        order = slice(None) if batch == 1 else _row_by_row(lengths)
        if (values.view(np.uint64) >= np.repeat(ends, counts)).any():
            _refuse_outside(group, bags)
        inputs = [(values + np.repeat(starts, counts))[order], np.ascontiguousarray(lengths.T)]
    if group.weighted:
        weights = np.concatenate([bag.all_weights for bag in bags])
        inputs.append(weights.reshape(len(bags), batch).T.reshape(-1) if order is None else weights[order])
    return inputs


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


def _check_shapes(name: str, bag: Bags, batch: int) -> None:
    if len(bag.lengths) != batch or (bag.is_scalar and len(bag.values) != batch):
        raise ValueError(f"{name}: lengths {bag.lengths.shape} do not fit {batch} rows of {len(bag.values)} IDs")
    if bag.weights is not None and bag.weights.shape != bag.values.shape:
        raise ValueError(f"{name}: {bag.weights.shape} weights for {len(bag.values)} IDs")


def _refuse_outside(group: Group, bags: Sequence[Bags]) -> None:
    for name, bag, rows in zip(group.features, bags, group.rows, strict=True):
        if len(bag.values) and not 0 <= bag.values.min() <= bag.values.max() < rows:
            raise ValueError(f"{name}: IDs {bag.values.min()} to {bag.values.max()} in a table of {rows} rows")
