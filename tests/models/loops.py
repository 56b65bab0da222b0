"""The tops written as their papers draw them: expert by expert and task by task, over the batched tops' weights.

The yardstick of the batched computation, for any precision. ReLU only, without dropout and noise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from models.experts import MixtureOfExperts
from models.parallel import ParallelLinear, ParallelMLP, WideLinear
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
        h = linear(relu(h), layer.weight[index], layer.bias[index])
    return relu(h) if stack.activate_output else h


def first_layers(layer: WideLinear, x: Tensor) -> list[list[Tensor]]:
    """[family][network]: one linear layer each, with its own rows of the wide one."""
    widths = [width for count, width in layer.families for _ in range(count)]
    weights, biases = layer.weight.split(widths), layer.bias.split(widths)
    outputs = iter([linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)])
    return [[next(outputs) for _ in range(count)] for count, _ in layer.families]


def towers(module: Towers, inputs: Sequence[Tensor]) -> Tensor:
    logits: dict[int, Tensor] = {}
    for members, group in zip(module.grouping.groups, module.groups, strict=True):
        assert isinstance(group, TowerGroup)
        for index, task in enumerate(members):
            if isinstance(group.first, WideLinear):
                h = first_layers(group.first, inputs[task])[0][index]
            else:
                h = linear(inputs[task], group.first.weight[index], group.first.bias[index])
            logits[task] = mlp(group.rest, index, h)[:, 0]
    return torch.stack([logits[task] for task in range(len(logits))], dim=1)


def mixture(module: MixtureOfExperts, x: Tensor) -> list[Tensor]:
    """Each gate's mixture [B, H]."""
    experts, gates, *residual = first_layers(module.first, x)
    outputs = [mlp(module.experts, e, h) for e, h in enumerate(experts)]
    for projections in residual:
        outputs = [out + projection for out, projection in zip(outputs, projections, strict=True)]
    weights = [torch.softmax(mlp(module.gates, g, h), dim=1) for g, h in enumerate(gates)]
    return [sum_of(outputs, weight) for weight in weights]


def sum_of(outputs: Sequence[Tensor], weights: Tensor) -> Tensor:
    total = torch.zeros_like(outputs[0])
    for expert, output in enumerate(outputs):
        total = total + weights[:, expert : expert + 1] * output
    return total


def experts_of(module: Streams, columns: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    outputs = [mlp(module.experts, e, h) for e, h in enumerate(columns[0])]
    if module.residual:
        outputs = [out + projection for out, projection in zip(outputs, columns[1], strict=True)]
    return outputs


def level_columns(module: Level, inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    if isinstance(module.first, WideLinear):
        return first_layers(module.first, inputs[0])
    columns = []
    for layer, (count, width) in zip(module.first, [*module.task.families, *module.shared.families], strict=True):
        assert isinstance(layer, ParallelLinear)
        streams = inputs[: module.num_tasks] if layer.count == module.num_tasks else inputs[-1:]
        outputs = [linear(x, w, b) for x, w, b in zip(streams, layer.weight, layer.bias, strict=True)]
        columns.append([part for output in outputs for part in output.split(width, dim=1)])
        assert len(columns[-1]) == count
    return columns


def level(module: Level, inputs: Sequence[Tensor]) -> list[Tensor]:
    columns = level_columns(module, inputs)
    of_tasks, of_shared = columns[: len(module.task.families)], columns[len(module.task.families) :]
    own, shared = experts_of(module.task, of_tasks), experts_of(module.shared, of_shared)
    k = module.num_own
    assert module.task.gates is not None
    mixed = []
    for task in range(module.num_tasks):
        weights = torch.softmax(mlp(module.task.gates, task, of_tasks[-1][task]), dim=1)
        mixed.append(sum_of([*own[task * k : (task + 1) * k], *shared], weights))
    if module.shared.gates is not None:
        mixed.append(sum_of([*own, *shared], torch.softmax(mlp(module.shared.gates, 0, of_shared[-1][0]), dim=1)))
    return mixed


def logits(top: nn.Module, x: Tensor) -> Tensor:
    """What top(x)[0] should be."""
    if isinstance(top, MMoE):
        return towers(top.towers, mixture(top.mixture, x))
    if isinstance(top, MoE):
        return towers(top.towers, mixture(top.mixture, x) * top.towers.num_tasks)
    if isinstance(top, SharedBottom):
        return towers(top.towers, [mlp(top.bottom, 0, first_layers(top.first, x)[0][0])] * top.towers.num_tasks)
    if isinstance(top, SingleTask):
        return towers(top.towers, [mlp(top.bottoms, t, h) for t, h in enumerate(first_layers(top.first, x)[0])])
    assert isinstance(top, PLE)
    h = [x] * (top.towers.num_tasks + 1)
    for module in top.levels:
        assert isinstance(module, Level)
        h = level(module, h)
    return towers(top.towers, h)
