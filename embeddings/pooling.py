"""What the tables return, by feature. Tables sum the rows of a bag; a mean is divided here, by the length of the bag.

FBGEMM's kernels know means too, but on a CPU they leave the division out of the gradient wherever a feature of the same
collection has weights.

Shapes: B batch, D width of a table.
"""

from collections.abc import Collection

from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor


def pooled_by_feature(sums: KeyedTensor, bags: KeyedJaggedTensor, means: Collection[str]) -> dict[str, Tensor]:
    """Feature -> its pooled rows [B, D], divided by the number of IDs in `means`; an empty bag is zero."""
    parts = dict(zip(sums.keys(), sums.values().split(sums.length_per_key(), dim=1), strict=True))
    lengths = dict(zip(bags.keys(), bags.lengths().view(len(bags.keys()), -1), strict=True))
    return parts | {name: parts[name] / lengths[name].clamp(min=1).unsqueeze(1) for name in means}
