"""The forward pass of a bundle as a module: from inputs and weights to predictions.

It owns no weights: they are inputs, so that tables stay where they are mapped. It sums bags of stacked tables, lays the
features out as the top was trained on them and applies the top. `programs` makes a bundle's program of it.

Shapes: B rows, F features of a group, N IDs of a group, D width, T tasks.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from configs.layout import InputLayout
from trainer.serving.row_formats import RowFormat, sum_bags
from trainer.serving.signature import Group


class ForwardPass(nn.Module):
    """(weights, inputs) -> predictions [B, T].

    Args:
        groups: stacked tables; the first weights are theirs.
        layout: of the top's input.
        top: gives its forward pass, not its weights.
        top_names: of the weights after the tables', in the top's state dict.
        predict: logits [B, T] -> predictions [B, T].
        dtype: in which the top computes.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        layout: InputLayout,
        top: nn.Module,
        top_names: Sequence[str],
        predict: Callable[[Tensor], Tensor],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.groups, self.dense_width, self._predict, self._dtype = groups, layout.dense_width, predict, dtype
        self._runs = _runs(groups, layout)
        self._top = [top]  # in a list, so that its weights do not become this module's
        self._top_names = list(top_names)

    def forward(self, weights: list[Tensor], inputs: list[Tensor]) -> Tensor:
        left = iter(inputs)
        pooled = []
        for group, table in zip(self.groups, weights, strict=False):
            values, lengths = next(left), next(left)
            weighted = next(left) if group.weighted else None
            pooled.append(pool(table, group.row_format, values, lengths, weighted, group.mean))
        dense = next(left) if self.dense_width else None
        blocks = [dense if run is None else _side_by_side(pooled[run.group], run) for run in self._runs]
        named = dict(zip(self._top_names, weights[len(self.groups) :], strict=True))
        x = torch.cat([block.to(self._dtype) for block in blocks if block is not None], dim=1)
        logits, _ = functional_call(self._top[0], named, (x,))
        return self._predict(logits)


def pool(
    table: Tensor,
    row_format: RowFormat,
    values: Tensor,
    lengths: Tensor,
    weights: Tensor | None,
    mean: Sequence[bool],
) -> Tensor:
    """Bags of rows of `table` [R, ...], IDs [N], lengths [B, F] -> [B, F, D] in float32: sums, means where `mean[f]`.

    As in torchrec, a mean divides by the number of IDs, weighted or not, and an empty bag is zero.
    """
    flat = lengths.flatten().long()
    bags = sum_bags(table, row_format, values, flat.cumsum(0) - flat, weights)
    bags = bags.view(lengths.shape[0], lengths.shape[1], bags.shape[1])
    if not any(mean):
        return bags
    counts = lengths.clamp(min=1).to(bags.dtype)[:, :, None]
    if all(mean):
        return bags / counts
    return torch.stack([bags[:, f] / counts[:, f] if mean[f] else bags[:, f] for f in range(len(mean))], dim=1)


class _Run(NamedTuple):
    """Features [first, last) of a group."""

    group: int
    first: int
    last: int


def _runs(groups: Sequence[Group], layout: InputLayout) -> list[_Run | None]:
    """The layout as runs of neighbours inside a group, of which each is one block of columns; None is the dense one."""
    place = {name: _Run(g, f, f + 1) for g, group in enumerate(groups) for f, name in enumerate(group.features)}
    runs: list[_Run | None] = []
    for one in layout.in_order(place, None):
        before = runs[-1] if runs else None
        if one and before and (before.group, before.last) == (one.group, one.first):
            runs[-1] = before._replace(last=one.last)
        else:
            runs.append(one)
    return runs


def _side_by_side(pooled: Tensor, run: _Run) -> Tensor:
    """[B, F, D] of a group -> the columns [B, ...] of a run's features."""
    whole = run.first == 0 and run.last == pooled.shape[1]
    return (pooled if whole else pooled[:, run.first : run.last]).flatten(1)
