"""PLE: stacked levels of shared experts and experts of each task's own, then a tower a task.

Tang et al. 2020, "Progressive Layered Extraction (PLE)". A level is a CGC: a task's gate sees its own experts and the
shared ones, never another task's, which protects tasks that conflict. Levels but the last also pass on a shared
stream, whose gate sees all experts. `num_levels: 1` is plain CGC.

Shapes: B batch, T tasks, K experts of a task, S shared experts, E = T * K + S, D input width, H expert output width.
A stream is what a task, or all tasks together, pass from level to level.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from configs.schema import ModelConfig, TaskConfig
from models.fork import Mix, MixFork
from models.gates import GateWeights
from models.parallel import ParallelLinear, ParallelMLP, WideLinear
from models.towers import Towers


class PLE(nn.Module):
    """x [B, D] -> (logits [B, T], {"level_0": [B, T + 1, E], ..., the last: [B, T, E]}).

    Experts are in the order task 0's, task 1's, ..., shared; a gate is zero where it does not reach.
    """

    def __init__(self, model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int) -> None:
        super().__init__()
        self.normalization = nn.LayerNorm(input_dim) if model.normalization == "layer" else nn.Identity()
        self.levels = nn.ModuleList()
        for index in range(model.num_levels):
            is_last = index == model.num_levels - 1
            width = model.expert_layers[-1] if index else input_dim
            self.levels.append(Level(model, len(tasks), width, same_input=index == 0, is_last=is_last))
        self.towers = Towers(model, tasks, model.expert_layers[-1])

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        streams = self.normalization(x)
        gates = {}
        for index, level in enumerate(self.levels):
            streams, gates[f"level_{index}"] = level(streams)
        return self.towers(streams), gates


class Level(nn.Module):
    """One CGC: rows of the streams [T + 1, B, D], the shared one last -> (rows [T + 1, B, H], gates [B, T + 1, E]).

    The first level takes one x [B, D] for all streams (`same_input`); the last has no shared stream to pass on.
    """

    def __init__(self, model: ModelConfig, num_tasks: int, input_dim: int, *, same_input: bool, is_last: bool) -> None:
        super().__init__()
        shared, own = model.num_experts, model.num_task_experts
        self.num_tasks, self.num_own, self.same_input = num_tasks, own, same_input
        self.task = Streams(model, "task", num_tasks, num_experts=own, num_reached=own + shared)
        reached = 0 if is_last else num_tasks * own + shared
        self.shared = Streams(model, "shared", 1, num_experts=shared, num_reached=reached)
        self.gate_weights = GateWeights(model)
        self.mix = MixFork(private=num_tasks * own) if is_last else Mix()
        if same_input:
            self.first = WideLinear(input_dim, {**self.task.families, **self.shared.families})
        else:
            self.first = nn.ModuleDict({**self.task.first_layers(input_dim), **self.shared.first_layers(input_dim)})

    def forward(self, streams: Tensor) -> tuple[Tensor, Tensor]:
        columns = self.first(streams) if isinstance(self.first, WideLinear) else self._own_first_layers(streams)
        task_experts, task_logits = self.task(columns)
        shared_experts, shared_logits = self.shared(columns)
        gates = self._task_gates(task_logits)
        if shared_logits is not None:
            gates = torch.cat([gates, self.gate_weights(shared_logits)], dim=1)
        experts = torch.cat([task_experts, shared_experts])
        return self.mix(gates, experts), gates

    def _own_first_layers(self, streams: Tensor) -> dict[str, Tensor]:
        """Columns of every family, each from its own streams."""
        assert isinstance(self.first, nn.ModuleDict)
        columns = streams.transpose(1, 2)
        inputs = {"task": columns[: self.num_tasks], "shared": columns[self.num_tasks :]}
        return {
            name: self.first[name](inputs[kind.name]).view(*family, -1)
            for kind in (self.task, self.shared)
            for name, family in kind.families.items()
        }

    def _task_gates(self, logits: Tensor) -> Tensor:
        """Logits [T, K + S, B] -> weights [B, T, E], zero at the other tasks' experts."""
        weights = self.gate_weights(logits)
        own = torch.diag_embed(weights[..., : self.num_own].transpose(1, 2), dim1=1, dim2=2)  # [B, T, T, K]
        return torch.cat([own.flatten(2), weights[..., self.num_own :]], dim=2)


class Streams(nn.Module):
    """Experts and gates of N streams of a kind, behind their first layers.

    Columns of each of `families` -> (rows of experts [N * num_experts, B, H], gate logits [N, num_reached, B]); without
    a gate (`num_reached` is 0) no logits.
    """

    def __init__(self, model: ModelConfig, name: str, count: int, *, num_experts: int, num_reached: int) -> None:
        super().__init__()
        self.name, self.count, self.residual = name, count, model.residual
        self.experts = ParallelMLP(
            count * num_experts, model.expert_layers, model.activation, model.dropout, activate_output=True, rows=True
        )
        self.families = {f"{name}_experts": self.experts.first_layer}
        if model.residual:
            self.families[f"{name}_residuals"] = (count * num_experts, model.expert_layers[-1])
        self.gates = None
        if num_reached:
            self.gates = ParallelMLP(count, (*model.gate_layers, num_reached), model.activation, activate_output=False)
            self.families[f"{name}_gates"] = self.gates.first_layer

    def first_layers(self, input_dim: int) -> dict[str, nn.Module]:
        """A first layer for each family whose streams have inputs of their own."""
        return {
            name: ParallelLinear(self.count, input_dim, count // self.count * width)
            for name, (count, width) in self.families.items()
        }

    def forward(self, columns: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        experts = self.experts(columns[f"{self.name}_experts"])
        if self.residual:
            experts = experts + columns[f"{self.name}_residuals"].transpose(1, 2)
        return experts, None if self.gates is None else self.gates(columns[f"{self.name}_gates"])


build = PLE
