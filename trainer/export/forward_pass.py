"""The forward pass of a bundle as a module: from inputs and weights to predictions.

It owns no weights: they are inputs, so that tables stay where they are mapped. It sums bags of stacked tables, lays the
features out as the top was trained on them and applies the top. `programs` makes a bundle's program of it.

Shapes: B rows, F features of a group, N IDs of a group, U bags of a group, D width, T tasks.
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
        predict: logits [B, T], and the weights after the top's -> predictions [B, T].
        dtype: in which the top computes.
        portable: add gathered rows, by operators that every runtime has.
        shared: bags are summed once and then stand for many rows: `serving.shared` says what the inputs are.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        layout: InputLayout,
        top: nn.Module,
        top_names: Sequence[str],
        predict: Callable[..., Tensor],
        dtype: torch.dtype = torch.float32,
        *,
        portable: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self._portable, self.shared = portable, shared
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
            sums = (add_rows if self._portable else _sums)(table, group.row_format, values, lengths, weighted)
            if self.shared:
                places = next(left)
                sums, lengths = sums[places.flatten()], lengths[places]
            pooled.append(pool(sums, lengths, group.mean))
        dense = next(left) if self.dense_width else None
        blocks = [dense if run is None else _side_by_side(pooled[run.group], run) for run in self._runs]
        end = len(self.groups) + len(self._top_names)
        named = dict(zip(self._top_names, weights[len(self.groups) : end], strict=True))
        x = torch.cat([block.to(self._dtype) for block in blocks if block is not None], dim=1)
        logits, _ = functional_call(self._top[0], named, (x,))
        return self._predict(logits, *weights[end:])


def pool(sums: Tensor, lengths: Tensor, mean: Sequence[bool]) -> Tensor:
    """Sums of bags [B * F, D], lengths [B, F] -> [B, F, D] in float32: sums, or means where `mean[f]`.

    As in torchrec, a mean divides by the number of IDs, weighted or not, and an empty bag is zero.
    """
    bags = sums.view(lengths.shape[0], lengths.shape[1], sums.shape[1])
    if not any(mean):
        return bags
    counts = lengths.clamp(min=1).to(bags.dtype)[:, :, None]
    if all(mean):
        return bags / counts
    return torch.stack([bags[:, f] / counts[:, f] if mean[f] else bags[:, f] for f in range(len(mean))], dim=1)


def _sums(table: Tensor, row_format: RowFormat, values: Tensor, lengths: Tensor, weights: Tensor | None) -> Tensor:
    flat = lengths.flatten().long()
    return sum_bags(table, row_format, values, flat.cumsum(0) - flat, weights)


def add_rows(table: Tensor, row_format: RowFormat, values: Tensor, lengths: Tensor, weights: Tensor | None) -> Tensor:
    """Sums [B * F, D] of the rows `values` [N] of floats: each is gathered, and added to its bag."""
    assert row_format in ("fp32", "fp16")
    ends = lengths.flatten().long().cumsum(0)
    ended = torch.zeros(values.shape[0] + 1, dtype=torch.int64).index_add(0, ends, torch.ones_like(ends))
    rows = table[values].float()
    rows = rows if weights is None else rows * weights[:, None]
    return torch.zeros(ends.shape[0], table.shape[1]).index_add(0, ended.cumsum(0)[:-1], rows)


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
