"""The tops written as their papers draw them: expert by expert and task by task, over the batched tops' weights.

The yardstick of the batched computation, for any precision. ReLU only, without dropout and noise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from models.batched.parallel import ParallelLinear, ParallelMLP, WideLinear
from models.experts import MixtureOfExperts
from models.tops.dlrm import DLRM
from models.tops.mmoe import MMoE
from models.tops.moe import MoE
from models.tops.ple import PLE, Level
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


Columns = dict[str, list[Tensor]]


def first_layers(layer: WideLinear, x: Tensor) -> Columns:
    """[family][network]: one linear layer each, with its own rows of the wide one."""
    widths = [width for count, width in layer.families.values() for _ in range(count)]
    weights, biases = layer.weight.split(widths), layer.bias.split(widths)
    outputs = iter([linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)])
    return {name: [next(outputs) for _ in range(count)] for name, (count, _) in layer.families.items()}


def towers(module: Towers, inputs: Sequence[Tensor]) -> Tensor:
    logits: dict[int, Tensor] = {}
    for members, group in zip(module.grouping.groups, module.groups, strict=True):
        assert isinstance(group, TowerGroup)
        for index, task in enumerate(members):
            h = linear(inputs[task], group.first.weight[index], group.first.bias[index])
            logits[task] = mlp(group.rest, index, h)[:, 0]
    return torch.stack([logits[task] for task in range(len(logits))], dim=1)


def mixture(module: MixtureOfExperts, x: Tensor) -> list[Tensor]:
    """Each gate's mixture [B, H]."""
    columns = first_layers(module.first, x)
    outputs = experts_of(module.experts, columns["experts"], columns.get("residuals"))
    weights = [torch.softmax(mlp(module.gates, g, h), dim=1) for g, h in enumerate(columns["gates"])]
    return [sum_of(outputs, weight) for weight in weights]


def experts_of(stack: ParallelMLP, columns: list[Tensor], residuals: list[Tensor] | None) -> list[Tensor]:
    outputs = [mlp(stack, e, h) for e, h in enumerate(columns)]
    if residuals is None:
        return outputs
    return [output + residual for output, residual in zip(outputs, residuals, strict=True)]


def sum_of(outputs: Sequence[Tensor], weights: Tensor) -> Tensor:
    total = torch.zeros_like(outputs[0])
    for expert, output in enumerate(outputs):
        total = total + weights[:, expert : expert + 1] * output
    return total


def level_columns(module: Level, inputs: Sequence[Tensor]) -> Columns:
    if isinstance(module.first, WideLinear):
        return first_layers(module.first, inputs[0])
    columns = {}
    for streams, rows in ((module.task, inputs[: module.num_tasks]), (module.shared, inputs[module.num_tasks :])):
        for name, (count, width) in streams.families.items():
            layer = module.first[name]
            assert isinstance(layer, ParallelLinear)
            outputs = [linear(x, w, b) for x, w, b in zip(rows, layer.weight, layer.bias, strict=True)]
            columns[name] = [part for output in outputs for part in output.split(width, dim=1)]
            assert len(columns[name]) == count
    return columns


def level(module: Level, inputs: Sequence[Tensor]) -> list[Tensor]:
    columns = level_columns(module, inputs)
    own = experts_of(module.task.experts, columns["task_experts"], columns.get("task_residuals"))
    shared = experts_of(module.shared.experts, columns["shared_experts"], columns.get("shared_residuals"))
    k = module.num_own
    assert module.task.gates is not None
    mixed = []
    for task in range(module.num_tasks):
        weights = torch.softmax(mlp(module.task.gates, task, columns["task_gates"][task]), dim=1)
        mixed.append(sum_of([*own[task * k : (task + 1) * k], *shared], weights))
    if module.shared.gates is not None:
        weights = torch.softmax(mlp(module.shared.gates, 0, columns["shared_gates"][0]), dim=1)
        mixed.append(sum_of([*own, *shared], weights))
    return mixed


def dlrm(top: DLRM, x: Tensor) -> Tensor:
    """What the towers get: pair by pair, layer by layer."""
    z, vectors = x[:, top.start :], list(x[:, : top.start].chunk(top.count - 1, dim=1)) if top.count > 1 else []
    for layer in top.bottom[::2]:
        z = relu(layer(z))
    h = torch.cat([z, *vectors], dim=1)
    if top.interaction == "dot":
        every = [z, *vectors]
        pairs = [(every[i] * every[j]).sum(dim=1, keepdim=True) for i in range(len(every)) for j in range(i)]
        h = torch.cat([z, *pairs], dim=1)
    x0 = h
    for layer in top.cross:
        h = x0 * (linear(linear(h, layer[0].weight), layer[1].weight) + layer[1].bias) + h
    for layer in top.top[::2]:
        h = relu(layer(h))
    return h


def logits(top: nn.Module, x: Tensor) -> Tensor:
    """What top(x)[0] should be."""
    if isinstance(top, MMoE):
        return towers(top.towers, mixture(top.mixture, x))
    if isinstance(top, MoE):
        return towers(top.towers, mixture(top.mixture, x) * top.towers.num_tasks)
    if isinstance(top, SharedBottom):
        return towers(top.towers, [mlp(top.bottom, 0, first_layers(top.first, x)["bottom"][0])] * top.towers.num_tasks)
    if isinstance(top, SingleTask):
        return towers(top.towers, [mlp(top.bottoms, t, h) for t, h in enumerate(first_layers(top.first, x)["bottoms"])])
    if isinstance(top, DLRM):
        return towers(top.towers, [dlrm(top, x)] * top.towers.num_tasks)
    assert isinstance(top, PLE)
    h = [x] * (top.towers.num_tasks + 1)
    for module in top.levels:
        assert isinstance(module, Level)
        h = level(module, h)
    return towers(top.towers, h)
