"""The tops written as their papers draw them: expert by expert and task by task, over the batched tops' weights.

The yardstick of the batched computation, for any precision. ReLU only, without dropout and noise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear, relu

from models.experts import MixtureOfExperts
from models.parallel import ParallelLinear, ParallelMLP
from models.tops.mmoe import MMoE
from models.tops.moe import MoE
from models.tops.ple import PLE, Level, Streams
from models.tops.shared_bottom import SharedBottom
from models.tops.single_task import SingleTask
from models.towers import TowerGroup, Towers


def mlp(stack: ParallelMLP, index: int, first: Tensor) -> Tensor:
    """Network `index` of a stack, from what its own first layer returned."""
    h = first
    for layer in stack.layers:
        assert isinstance(layer, ParallelLinear)
        h = linear(relu(h), layer.weight[index].T, layer.bias[index, 0])
    return relu(h) if stack.activate_output else h


def first_layers(layer: torch.nn.Module, x: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """One linear layer for every entry of widths, with its own rows of a wide one."""
    assert isinstance(layer, torch.nn.Linear)
    weights, biases = layer.weight.split(list(widths)), layer.bias.split(list(widths))
    return [linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]


def towers(module: Towers, inputs: Sequence[Tensor]) -> Tensor:
    logits: dict[int, Tensor] = {}
    for members, group in zip(module.grouping.groups, module.groups, strict=True):
        assert isinstance(group, TowerGroup)
        first, rest = group.first, group.rest
        for index, task in enumerate(members):
            if isinstance(first, ParallelLinear):
                h = linear(inputs[task], first.weight[index].T, first.bias[index, 0])
            else:
                h = first_layers(first, inputs[task], [rest.widths[0]] * rest.count)[index]
            logits[task] = mlp(rest, index, h)[:, 0]
    return torch.stack([logits[task] for task in range(len(logits))], dim=1)


def mixture(module: MixtureOfExperts, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """(each gate's mixture [B, H], its weights [B, E])."""
    experts, gates, residual = module.experts, module.gates, module.first_widths[2] > 0
    widths = [experts.widths[0]] * experts.count + [gates.widths[0]] * gates.count
    columns = first_layers(module.first, x, widths + [module.output_dim] * (experts.count if residual else 0))
    outputs = [mlp(experts, e, columns[e]) for e in range(experts.count)]
    if residual:
        outputs = [out + columns[e - experts.count] for e, out in enumerate(outputs)]
    weights = [torch.softmax(mlp(gates, g, columns[experts.count + g]), dim=1) for g in range(gates.count)]
    mixed = [sum_of(outputs, weight) for weight in weights]
    return mixed, weights


def sum_of(outputs: Sequence[Tensor], weights: Tensor) -> Tensor:
    total = torch.zeros_like(outputs[0])
    for expert, output in enumerate(outputs):
        total = total + weights[:, expert : expert + 1] * output
    return total


def streams(module: Streams, index: int, columns: Tensor) -> tuple[list[Tensor], Tensor]:
    """(the experts of stream `index`, its gate's logits) from its columns [B, width]."""
    parts, gate, residual = columns.split(module.widths, dim=1)
    k = module.num_experts
    outputs = [mlp(module.experts, index * k + e, part) for e, part in enumerate(parts.chunk(k, dim=1))]
    if module.widths[2]:
        outputs = [out + part for out, part in zip(outputs, residual.chunk(k, dim=1), strict=True)]
    return outputs, mlp(module.gates, index, gate)


def level(module: Level, inputs: Sequence[Tensor]) -> list[Tensor]:
    num_tasks = module.num_tasks
    if module.same_input:
        widths = [module.task.width] * num_tasks + [module.shared.width]
        columns = first_layers(module.first, inputs[0], widths)
    else:
        layers = [(module.first_of_tasks, t) for t in range(num_tasks)] + [(module.first_of_shared, 0)]
        columns = [linear(x, f.weight[i].T, f.bias[i, 0]) for x, (f, i) in zip(inputs, layers, strict=True)]
    shared, shared_logits = streams(module.shared, 0, columns[-1])
    own, logits = zip(*(streams(module.task, t, columns[t]) for t in range(num_tasks)), strict=True)
    mixed = [sum_of([*own[t], *shared], torch.softmax(logits[t], dim=1)) for t in range(num_tasks)]
    if not module.is_last:
        every = [expert for experts in own for expert in experts]
        mixed.append(sum_of([*every, *shared], torch.softmax(shared_logits, dim=1)))
    return mixed


def logits(top: torch.nn.Module, x: Tensor) -> Tensor:
    """What top(x)[0] should be."""
    if isinstance(top, MMoE):
        return towers(top.towers, mixture(top.mixture, x)[0])
    if isinstance(top, MoE):
        return towers(top.towers, mixture(top.mixture, x)[0] * top.towers.num_tasks)
    if isinstance(top, SharedBottom):
        return towers(top.towers, [mlp(top.bottom, 0, top.first(x))] * top.towers.num_tasks)
    if isinstance(top, SingleTask):
        columns = first_layers(top.first, x, [top.bottoms.widths[0]] * top.bottoms.count)
        return towers(top.towers, [mlp(top.bottoms, t, h) for t, h in enumerate(columns)])
    assert isinstance(top, PLE)
    h = [x] * (top.towers.num_tasks + 1)
    for module in top.levels:
        assert isinstance(module, Level)
        h = level(module, h)
    return towers(top.towers, h)
