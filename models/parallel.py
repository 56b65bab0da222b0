"""Many small networks of one shape, computed together: batched linear layers and stacks of them.

Between layers a network's values are *columns* [N, W, B], a row of the batch being a column: all networks' first
layers are then one product `weight @ x.T` whose parts need no copying, nor do the products after it. Where a row's
values must lie side by side (mixing, towers) they are *rows* [N, B, W]. What the networks mean is for the callers.

Shapes: N networks, B batch, W width of a layer, D input width.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.wide import is_plain, wide_product

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
}


def activation(name: str) -> nn.Module:
    """The activation that `model.activation` names."""
    return _ACTIVATIONS[name]()


class WideLinear(nn.Linear):
    """First layers of several families of networks over one input, as one product.

    x [B, D] -> a tensor of columns [N, W, B] for each (N, W) of `families`, by the family's name.
    """

    def __init__(self, input_dim: int, families: Mapping[str, tuple[int, int]]) -> None:
        super().__init__(input_dim, sum(count * width for count, width in families.values()))
        self.families = dict(families)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        sizes = [count * width for count, width in self.families.values()]
        parts = wide_product(x, self.weight, self.bias, sizes)
        return {name: parts[index].unflatten(0, self.families[name]) for index, name in enumerate(self.families)}

    def extra_repr(self) -> str:
        parts = [f"{count} x {width} {name}" for name, (count, width) in self.families.items()]
        return f"{self.in_features} -> {', '.join(parts)}"


class ParallelLinear(nn.Module):
    """N independent linear layers as one product: columns [N, in, B] -> columns [N, out, B].

    With `layout` "to_rows" it returns rows [N, B, out]; with "to_columns" it takes rows [N, B, in].
    """

    def __init__(
        self,
        count: int,
        in_features: int,
        out_features: int,
        layout: Literal["columns", "to_rows", "to_columns"] = "columns",
    ) -> None:
        super().__init__()
        self.count, self.in_features, self.out_features, self.layout = count, in_features, out_features, layout
        self.weight = nn.Parameter(torch.empty(count, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(count, out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every network's weights as nn.Linear(in_features, out_features) would."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        if self.layout == "columns":
            return torch.baddbmm(self.bias.unsqueeze(2), self.weight, x)
        if is_plain(x, self.out_features / self.in_features):
            return _transposing(x, self.weight, self.bias, self.layout == "to_rows")
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return _TransposingLinear.apply(x, weight, bias, self.layout == "to_rows")  # pyright: ignore[reportReturnType]

    def extra_repr(self) -> str:
        return f"{self.count} x ({self.in_features} -> {self.out_features})"


def _transposing(x: Tensor, weight: Tensor, bias: Tensor, to_rows: bool) -> Tensor:
    if to_rows:
        return torch.baddbmm(bias.unsqueeze(1), x.transpose(1, 2), weight.transpose(1, 2))
    return torch.baddbmm(bias.unsqueeze(2), weight, x.transpose(1, 2))


class _TransposingLinear(torch.autograd.Function):
    """Linear layers between columns and rows, whose gradients come in the layout of their input.

    Autograd alone would give them in the other layout, and every product and activation behind would copy them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, to_rows: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.to_rows = to_rows
        return _transposing(x, weight, bias, to_rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        grad = grad.to(x.dtype)
        other = grad.transpose(1, 2)
        if ctx.to_rows:
            return weight.transpose(1, 2) @ other, other @ x.transpose(1, 2), grad.sum(dim=1), None
        return other @ weight, grad @ x, grad.sum(dim=2), None


class ParallelMLP(nn.Module):
    """N multi-layer networks behind their first layer: columns [N, widths[0], B] -> columns [N, widths[-1], B].

    The input is what the first linear layer returned, before its activation. With `activate_output` the last layer
    ends in activation and dropout as the hidden ones do; with `rows` it returns rows [N, B, widths[-1]].
    """

    def __init__(
        self,
        count: int,
        widths: Sequence[int],
        activation_name: str,
        dropout: float = 0.0,
        *,
        activate_output: bool,
        rows: bool = False,
    ) -> None:
        super().__init__()
        self.count, self.widths, self.activate_output, self.rows = count, tuple(widths), activate_output, rows
        self.activation = activation(activation_name)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        last = len(widths) - 2
        self.layers = nn.ModuleList(
            ParallelLinear(count, *pair, "to_rows" if rows and index == last else "columns")
            for index, pair in enumerate(itertools.pairwise(widths))
        )

    @property
    def first_layer(self) -> tuple[int, int]:
        """(N, widths[0]): the share of these networks in a WideLinear."""
        return self.count, self.widths[0]

    def forward(self, columns: Tensor) -> Tensor:
        h = columns
        for layer in self.layers:
            h = layer(self._activate(h))
        if self.rows and not self.layers:
            h = h.transpose(1, 2)
        return self._activate(h) if self.activate_output else h

    def last_hidden(self, columns: Tensor) -> Tensor:
        """What the last layer takes: columns [N, widths[-2], B], activated."""
        h = columns
        for index, layer in enumerate(self.layers):
            h = self._activate(h)
            if index < len(self.layers) - 1:
                h = layer(h)
        return h

    def _activate(self, x: Tensor) -> Tensor:
        return self.dropout(self.activation(x))
