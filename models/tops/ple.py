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
from models.experts import mix
from models.gates import GateWeights
from models.parallel import ParallelLinear, ParallelMLP
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
    """One CGC: streams [T + 1, B, D], the shared one last -> (streams [T + 1, B, H], gates [B, T + 1, E]).

    The first level takes one x [B, D] for all streams (`same_input`); the last has no shared stream to pass on.
    """

    def __init__(self, model: ModelConfig, num_tasks: int, input_dim: int, *, same_input: bool, is_last: bool) -> None:
        super().__init__()
        shared, own = model.num_experts, model.num_task_experts
        self.num_tasks, self.num_own, self.same_input, self.is_last = num_tasks, own, same_input, is_last
        self.task = Streams(model, num_tasks, num_experts=own, num_reached=own + shared)
        self.shared = Streams(model, 1, num_experts=shared, num_reached=0 if is_last else num_tasks * own + shared)
        self.gate_weights = GateWeights(model)
        if same_input:
            self.first = nn.Linear(input_dim, num_tasks * self.task.width + self.shared.width)
        else:
            self.first_of_tasks = ParallelLinear(num_tasks, input_dim, self.task.width)
            self.first_of_shared = ParallelLinear(1, input_dim, self.shared.width)

    def forward(self, streams: Tensor) -> tuple[Tensor, Tensor]:
        task_columns, shared_columns = self._first_layer(streams)
        task_experts, task_logits = self.task(task_columns)
        shared_experts, shared_logits = self.shared(shared_columns)
        gates = self._task_gates(task_logits)
        if not self.is_last:
            gates = torch.cat([gates, self.gate_weights(shared_logits.transpose(0, 1))], dim=1)
        return mix(gates, torch.cat([task_experts, shared_experts])), gates

    def _first_layer(self, streams: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer of everything in this level: columns [T, B, width] of the tasks, [1, B, width] shared."""
        if not self.same_input:
            tasks, shared = streams.split([self.num_tasks, 1])
            return self.first_of_tasks(tasks), self.first_of_shared(shared)
        tasks, shared = self.first(streams).split([self.num_tasks * self.task.width, self.shared.width], dim=1)
        return tasks.unflatten(1, (self.num_tasks, self.task.width)).transpose(0, 1), shared.unsqueeze(0)

    def _task_gates(self, logits: Tensor) -> Tensor:
        """Logits [T, B, K + S] -> weights [B, T, E], zero at the other tasks' experts."""
        weights = self.gate_weights(logits.transpose(0, 1))
        own = torch.diag_embed(weights[..., : self.num_own].transpose(1, 2), dim1=1, dim2=2)  # [B, T, T, K]
        return torch.cat([own.flatten(2), weights[..., self.num_own :]], dim=2)


class Streams(nn.Module):
    """Experts and gate of N streams of a kind, behind their first layer.

    columns [N, B, width] -> (experts [N * num_experts, B, H], gate logits [N, B, num_reached]).
    """

    def __init__(self, model: ModelConfig, count: int, *, num_experts: int, num_reached: int) -> None:
        super().__init__()
        self.num_experts, output_dim = num_experts, model.expert_layers[-1]
        self.experts = ParallelMLP(
            count * num_experts, model.expert_layers, model.activation, model.dropout, activate_output=True
        )
        gate_widths = (*model.gate_layers, num_reached) if num_reached else (0,)
        self.gates = ParallelMLP(count, gate_widths, model.activation, activate_output=False)
        residual = num_experts * output_dim if model.residual else 0
        self.widths = [num_experts * model.expert_layers[0], gate_widths[0], residual]
        self.width = sum(self.widths)

    def forward(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        expert_columns, gate_columns, residual = columns.split(self.widths, dim=2)
        experts = self.experts(self._by_expert(expert_columns))
        if self.widths[2]:
            experts = experts + self._by_expert(residual)
        return experts, self.gates(gate_columns)

    def _by_expert(self, columns: Tensor) -> Tensor:
        """[N, B, num_experts * W] -> [N * num_experts, B, W]."""
        return columns.unflatten(2, (self.num_experts, -1)).transpose(1, 2).flatten(0, 1)


build = PLE
