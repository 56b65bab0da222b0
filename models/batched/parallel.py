"""Many small networks of one shape, computed together: batched linear layers and stacks of them.

A network's values are *columns* [N, W, B], a row of the batch being a column: all networks' first layers are then one
product `weight @ x.T` whose parts need no copying, nor do the products after it. How a whole stack of ReLU layers is
computed and differentiated in one go is in models/batched/stacks.py. What the networks mean is for the callers.

Shapes: N networks, B batch, W width of a layer, D input width.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from models.batched.stacks import Stack, on_own_inputs, on_shared_input
from models.draws import Dropout

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


def is_traced(x: Tensor) -> bool:
    """Whether somebody wants to see layers and torch's own operators: a compiler, an export, torch.fx, a meta run."""
    return torch.compiler.is_compiling() or not isinstance(x, Tensor) or x.is_meta


class WideLinear(nn.Linear):
    """First layers of several families of networks over one input, as one product.

    x [B, D] -> a tensor of columns [N, W, B] for each (N, W) of `families`, by the family's name.
    """

    def __init__(self, input_dim: int, families: Mapping[str, tuple[int, int]]) -> None:
        super().__init__(input_dim, sum(count * width for count, width in families.values()))
        self.families = dict(families)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        product = torch.addmm(self.bias.unsqueeze(1), self.weight, x.t())
        parts = product.split([count * width for count, width in self.families.values()])
        return {name: parts[index].unflatten(0, self.families[name]) for index, name in enumerate(self.families)}

    def extra_repr(self) -> str:
        parts = [f"{count} x {width} {name}" for name, (count, width) in self.families.items()]
        return f"{self.in_features} -> {', '.join(parts)}"


class ParallelLinear(nn.Module):
    """N independent linear layers as one product: columns [N, in, B] -> columns [N, out, B]."""

    def __init__(self, count: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.count, self.in_features, self.out_features = count, in_features, out_features
        self.weight = nn.Parameter(torch.empty(count, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(count, out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every network's weights as nn.Linear(in_features, out_features) would."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias.unsqueeze(2), self.weight, x)

    def extra_repr(self) -> str:
        return f"{self.count} x ({self.in_features} -> {self.out_features})"


class ParallelMLP(nn.Module):
    """N multi-layer networks behind their first layer: columns [N, widths[0], B] -> columns [N, widths[-1], B].

    The input is what the first linear layer returned, before its activation. With `activate_output` the last layer
    ends in activation and dropout as the hidden ones do.
    """

    def __init__(
        self,
        count: int,
        widths: Sequence[int],
        activation_name: str,
        dropout: float = 0.0,
        *,
        activate_output: bool,
    ) -> None:
        super().__init__()
        self.count, self.widths, self.activate_output = count, tuple(widths), activate_output
        self.activation = activation(activation_name)
        self.layers = nn.ModuleList(ParallelLinear(count, *pair) for pair in itertools.pairwise(widths))
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in range(len(self.layers) + activate_output))

    @property
    def first_layer(self) -> tuple[int, int]:
        """(N, widths[0]): the share of these networks in a WideLinear."""
        return self.count, self.widths[0]

    @property
    def is_stack(self) -> bool:
        """Whether models/batched/stacks.py can compute these networks in one go."""
        return isinstance(self.activation, nn.ReLU)

    def stack(self) -> Stack:
        """What it needs to know of them, for this call."""
        dropouts = cast(Sequence[Dropout], self.dropouts)
        is_drawn = self.training and any(dropout.threshold for dropout in dropouts)
        return Stack(*self.first_layer, len(self.layers), self.activate_output, dropouts if is_drawn else ())

    def operands(self) -> list[Tensor]:
        """Weight and bias of layer after layer."""
        layers = cast(Iterable[ParallelLinear], self.layers)
        return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]

    def forward(self, columns: Tensor) -> Tensor:
        h = columns
        for index, layer in enumerate(self.layers):
            h = layer(self._activate(h, index))
        return self._activate(h, len(self.layers)) if self.activate_output else h

    def last_hidden(self, columns: Tensor) -> Tensor:
        """What the last layer takes: columns [N, widths[-2], B], activated."""
        h = columns
        for index, layer in enumerate(self.layers):
            h = self._activate(h, index)
            if index < len(self.layers) - 1:
                h = layer(h)
        return h

    def _activate(self, x: Tensor, index: int) -> Tensor:
        return self.dropouts[index](self.activation(x))


def forward_families(first: WideLinear, networks: Mapping[str, ParallelMLP], x: Tensor) -> dict[str, Tensor]:
    """x [B, D] -> columns [N, W, B] of each family of `first`; where it has networks, of what they make of them."""
    if is_traced(x):
        return {name: networks[name](h) if name in networks else h for name, h in first(x).items()}
    whole = {name: networks[name] for name in first.families if name in networks and networks[name].is_stack}
    stacks = [whole[name].stack() if name in whole else Stack(*family) for name, family in first.families.items()]
    operands = [operand for stack in whole.values() for operand in stack.operands()]
    columns = zip(first.families, on_shared_input(x, first.weight, first.bias, stacks, operands), strict=True)
    return {name: networks[name](h) if name in networks and name not in whole else h for name, h in columns}


def forward_family(first: ParallelLinear, networks: ParallelMLP, x: Tensor) -> Tensor:
    """Columns [M, in, B], each of which is the input of N / M networks -> columns [N, W, B] of their outputs."""
    if is_traced(x) or not networks.is_stack:
        return networks(first(x).view(*networks.first_layer, -1))
    return on_own_inputs(x, networks.stack(), [first.weight, first.bias, *networks.operands()])
