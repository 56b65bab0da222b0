"""Stacks of linear layers and ReLU for many networks at once, as one operation with its derivative written by hand.

Left to autograd, a small top spends more time on bookkeeping (a node, views and temporaries for every layer) than on
products, and a large one copies gradients from one layout to another. Here ReLU works in place, every gradient is
written where the next product reads it, and the first layers of several families of networks are one product in both
directions. What is not ReLU, and whatever a compiler or an export traces, goes layer by layer (parallel.py).

Dropout needs no mask of its own: what it hides is zero, just as what ReLU cuts off.

Shapes: B batch, D input width, W all first layers' width, N networks, I and O widths of a layer.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.batched.apply import apply
from models.batched.products import product
from models.draws import Dropout


class Stack(NamedTuple):
    """The later layers of N networks of one family; their weights and biases travel beside it."""

    count: int  # N
    width: int  # of what the first layer returns
    depth: int = 0  # layers behind the first; each takes ReLU of the one before
    activate_output: bool = False
    dropouts: Sequence[Dropout] = ()  # behind each ReLU; none outside training


Parameters = Sequence[Tensor]  # weight [N, O, I], bias [N, O] of layer after layer


def on_shared_input(
    x: Tensor, weight: Tensor, bias: Tensor, stacks: Sequence[Stack], parameters: Parameters
) -> tuple[Tensor, ...]:
    """x [B, D], first layers' weight [W, D] and bias [W] -> columns [N, O, B] of each stack.

    `parameters` are those of the later layers, stack after stack.
    """
    return apply(_OnSharedInput, x, stacks, weight, bias, *parameters)


def on_own_inputs(x: Tensor, stack: Stack, parameters: Parameters) -> Tensor:
    """Columns x [M, I, B], each the input of N / M networks -> columns [N, O, B].

    `parameters` begin with the first layer's: weight [M, N / M * width, I] and bias.
    """
    return apply(_OnOwnInputs, x, stack, *parameters)


class _OnSharedInput(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, stacks: Sequence[Stack], weight: Tensor, bias: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        x, weight, bias, *later = _as_autocast(x, weight, bias, *parameters)
        first = product(weight, x, bias)
        outputs, saved, start = [], [], 0
        for stack, columns in zip(stacks, _families(first, stacks), strict=True):
            own = later[start : (start := start + 2 * stack.depth)]
            inputs, output = _up(columns, own, stack)
            outputs.append(output)
            saved += [*own[::2], *inputs, output]
        ctx.stacks = stacks
        ctx.save_for_backward(x, weight, *saved)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, weight, *saved = ctx.saved_tensors
        first = x.new_empty(len(weight), len(x))
        parameters, start = [], 0
        for stack, grad, columns in zip(ctx.stacks, grads, _families(first, ctx.stacks), strict=True):
            own = saved[start : (start := start + 2 * stack.depth + 1)]
            parameters += _down(grad, own[: stack.depth], own[stack.depth :], stack, columns)
        grad_x = product(first.t(), weight.t()) if ctx.needs_input_grad[0] else None
        return grad_x, None, product(first, x.t()), first.sum(dim=1), *parameters


class _OnOwnInputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stack: Stack, *parameters: Tensor) -> Tensor:
        x, weight, bias, *later = _as_autocast(x, *parameters)
        first = torch.baddbmm(bias.unsqueeze(2), weight, x).view(stack.count, stack.width, -1)
        inputs, output = _up(first, later, stack)
        ctx.stack = stack
        ctx.save_for_backward(x, weight, *later[::2], *inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, weight, *saved = ctx.saved_tensors
        stack = ctx.stack
        first = x.new_empty(stack.count, stack.width, x.shape[2])
        parameters = _down(grad, saved[: stack.depth], saved[stack.depth :], stack, first)
        first = first.view(len(weight), -1, x.shape[2])
        return torch.bmm(weight.mT, first), None, torch.bmm(first, x.mT), first.sum(dim=2), *parameters


def _families(first: Tensor, stacks: Sequence[Stack]) -> list[Tensor]:
    """[W, B] -> its part [N, width, B] of each stack."""
    parts = first.split([stack.count * stack.width for stack in stacks])
    return [part.view(stack.count, stack.width, -1) for part, stack in zip(parts, stacks, strict=True)]


def _up(columns: Tensor, parameters: Parameters, stack: Stack) -> tuple[list[Tensor], Tensor]:
    """(input of each layer, output) from what the first layer returned, which is used up."""
    inputs = []
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        inputs.append(_activate(columns, stack, len(inputs)))
        columns = torch.baddbmm(bias.unsqueeze(2), weight, inputs[-1])
    return inputs, _activate(columns, stack, stack.depth) if stack.activate_output else columns


def _down(
    grad: Tensor, weights: Sequence[Tensor], values: Sequence[Tensor], stack: Stack, into: Tensor
) -> list[Tensor]:
    """Gradients of the parameters; the gradient of what the first layer returned goes `into` its place.

    `values` are the inputs of all layers and the output, as `_up` returned them.
    """
    *inputs, output = values
    if stack.activate_output:
        grad = _deactivate(grad, output, stack, torch.empty_like(output) if weights else into)
    elif not weights:
        into.copy_(grad)
    parameters: list[Tensor] = []
    for layer in reversed(range(stack.depth)):
        parameters = [torch.bmm(grad, inputs[layer].mT), grad.sum(dim=2), *parameters]
        below = torch.empty_like(inputs[layer]) if layer else into
        torch.bmm(weights[layer].mT, grad, out=below)
        grad = _deactivate(below, inputs[layer], stack, below)
    return parameters


def _activate(columns: Tensor, stack: Stack, layer: int) -> Tensor:
    columns = torch.relu_(columns)
    if not stack.dropouts:
        return columns
    dropout = stack.dropouts[layer]
    return columns.mul_(dropout.kept(columns)).mul_(dropout.scale)


def _deactivate(grad: Tensor, activated: Tensor, stack: Stack, out: Tensor) -> Tensor:
    torch.ops.aten.threshold_backward.grad_input(grad, activated, 0, grad_input=out)
    return out.mul_(stack.dropouts[0].scale) if stack.dropouts else out


def _as_autocast(*tensors: Tensor) -> Sequence[Tensor]:
    """In autocast's precision where it is on: each is cast once, for all products that read it."""
    device = tensors[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return [tensor.to(dtype) for tensor in tensors]
