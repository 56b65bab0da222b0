"""Transformed columns into the tensors that a bundle's program takes, checked first: the program itself checks nothing.

Order of the inputs: for every group of tables values [N], lengths [F, B] and, if weighted, weights [N]; then dense
[B, D] if there are dense features. B rows, F features of the group, N IDs of all of them, feature by feature.
"""

from collections.abc import Sequence

import numpy as np
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
    inputs = [tensor for group in groups for tensor in _group_inputs(columns, group, batch)]
    if columns.dense.shape != (batch, dense_width) or columns.dense.dtype != np.float32:
        raise ValueError(f"dense is {columns.dense.dtype}{columns.dense.shape}, not float32 {(batch, dense_width)}")
    if dense_width:
        inputs.append(torch.from_numpy(np.ascontiguousarray(columns.dense)))
    return inputs


def _group_inputs(columns: Columns, group: Group, batch: int) -> list[Tensor]:
    bags = [columns.sparse[name] for name in group.features]
    for name, bag, rows in zip(group.features, bags, group.rows, strict=True):
        _check(name, bag, rows, batch)
    values = np.concatenate([bag.values + first for bag, first in zip(bags, group.first_rows, strict=True)])
    lengths = np.stack([bag.lengths for bag in bags]).astype(np.int32, copy=False)
    inputs = [torch.from_numpy(values), torch.from_numpy(lengths)]
    if group.weighted:
        inputs.append(torch.from_numpy(np.concatenate([bag.all_weights for bag in bags])))
    return inputs


def _check(name: str, bag: Bags, rows: int, batch: int) -> None:
    if bag.lengths.shape != (batch,) or (bag.lengths < 0).any() or bag.lengths.sum() != len(bag.values):
        raise ValueError(f"{name}: lengths {bag.lengths.shape} do not fit {batch} rows of {len(bag.values)} IDs")
    if bag.weights is not None and bag.weights.shape != bag.values.shape:
        raise ValueError(f"{name}: {bag.weights.shape} weights for {len(bag.values)} IDs")
    if len(bag.values) and not 0 <= bag.values.min() <= bag.values.max() < rows:
        raise ValueError(f"{name}: IDs {bag.values.min()} to {bag.values.max()} in a table of {rows} rows")
