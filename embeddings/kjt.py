"""Bags of IDs into TorchRec's KeyedJaggedTensor, the one form in which they reach the tables.

The reader, which gathers bags from many row groups, makes its own.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from embeddings.features.bags import Bags


def to_kjt(names: Sequence[str], bags: Mapping[str, Bags]) -> KeyedJaggedTensor:
    """The KJT of `names` in that order, F features of B rows each.

    Where one feature has weights all have: 1 for the IDs of the others, as a weighted KJT demands.
    """
    chosen = [bags[name] for name in names]
    values = torch.from_numpy(np.concatenate([bag.values for bag in chosen]))
    lengths = torch.from_numpy(np.concatenate([bag.lengths for bag in chosen]))
    weights = None
    if any(bag.weights is not None for bag in chosen):
        weights = torch.from_numpy(np.concatenate([bag.all_weights for bag in chosen]))
    return KeyedJaggedTensor(keys=list(names), values=values, lengths=lengths, weights=weights)
