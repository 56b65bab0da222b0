"""PLE: stacked levels of shared experts and experts of each task's own, then a tower a task.

Tang et al. 2020, "Progressive Layered Extraction (PLE)". A level is a CGC: a task's gate sees its own experts and the
shared ones, never another task's, which protects tasks that conflict. Levels but the last also pass on a shared
stream, whose gate sees all experts. `num_levels: 1` is plain CGC.

In plain PyTorch, network by network, one level; h[0] ... h[T - 1] are the tasks' streams, h[T] the shared one, all of
them x before the first level:

    common = [expert(h[T]) for expert in shared_experts]                                # S of [B, H]
    own = [[expert(h[t]) for expert in task_experts[t]] for t in range(T)]              # T lists of K
    new = [mix(gates[t](h[t]), own[t] + common) for t in range(T)]
    new += [mix(shared_gate(h[T]), sum(own, []) + common)]                              # not in the last level

with mix(g, outputs) = torch.einsum("be,ebh->bh", torch.softmax(g, dim=1), torch.stack(outputs)); after the last level
logits[:, t] = towers[t](h[t])[:, 0]. The same in a few wide products: `models.batched`.

Shapes: B batch, T tasks, K experts of a task, S shared experts, E = T * K + S, D input width, H expert output width.
A stream is what a task, or all tasks together, pass from level to level.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from configs.choice_settings import ChoiceSettings
from configs.layout import InputLayout
from configs.schema import ModelConfig, TaskConfig
from configs.section import PositiveInt
from models.batched.parallel import ParallelLinear, ParallelMLP, WideLinear, forward_families, forward_family
from models.fork import Mix, MixFork
from models.gates import GateWeights
from models.towers import Towers


class Settings(ChoiceSettings):
    """`model.num_experts` are the shared experts of a level."""

    num_task_experts: PositiveInt = Field(
        default=1,
        description="Experts of each task in a level. More keep conflicting tasks apart; each costs one expert for "
        "every task and level.",
    )
    num_levels: PositiveInt = Field(
        default=2, description="Stacked extraction levels; 1 is CGC. Each costs all experts and gates once more."
    )


class PLE(nn.Module):
    """x [B, D] -> (logits [B, T], {"level_0": [B, T + 1, E], ..., the last: [B, T, E]}).

    Experts are in the order task 0's, task 1's, ..., shared; a gate is zero where it does not reach.
    """

    def __init__(self, settings: Settings, model: ModelConfig, tasks: Mapping[str, TaskConfig], input_dim: int) -> None:
        super().__init__()
        self.normalization = nn.LayerNorm(input_dim) if model.normalization == "layer" else nn.Identity()
        self.levels = nn.ModuleList()
        for index in range(settings.num_levels):
            is_last = index == settings.num_levels - 1
            width = model.expert_layers[-1] if index else input_dim
            own = settings.num_task_experts
            self.levels.append(Level(model, len(tasks), own, width, same_input=index == 0, is_last=is_last))
        self.towers = Towers(model, tasks, model.expert_layers[-1])

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        streams = self.normalization(x)
        gates = {}
        for index, level in enumerate(self.levels):
            streams, gates[f"level_{index}"] = level(streams)
        return self.towers(streams), gates


class Level(nn.Module):
    """One CGC: (columns of the streams [T + 1, D, B]) -> (columns [T + 1, H, B], gates [B, T + 1, E]).

    The shared stream is the last. The first level takes one x [B, D] for all streams (`same_input`); the last has no
    shared stream to pass on.
    """

    def __init__(
        self, model: ModelConfig, num_tasks: int, own: int, input_dim: int, *, same_input: bool, is_last: bool
    ) -> None:
        """own: experts of each task."""
        super().__init__()
        shared = model.num_experts
        self.num_tasks, self.num_own, self.same_input = num_tasks, own, same_input
        self.task = Streams(model, "task", num_tasks, num_experts=own, num_reached=own + shared)
        reached = 0 if is_last else num_tasks * own + shared
        self.shared = Streams(model, "shared", 1, num_experts=shared, num_reached=reached)
        self.mix = MixFork(private=num_tasks * own) if is_last else Mix()
        if same_input:
            self.first = WideLinear(input_dim, {**self.task.families, **self.shared.families})
        else:
            self.first = nn.ModuleDict({**self.task.first_layers(input_dim), **self.shared.first_layers(input_dim)})

    def forward(self, streams: Tensor) -> tuple[Tensor, Tensor]:
        columns = self._columns(streams)
        gates = self._task_gates(columns["task_gates"])
        if "shared_gates" in columns:
            gates = torch.cat([gates, self.shared.gate_weights(columns["shared_gates"])])
        experts = torch.cat([self.task.expert_outputs(columns), self.shared.expert_outputs(columns)])
        return self.mix(gates, experts), gates.permute(2, 0, 1)

    def _columns(self, streams: Tensor) -> dict[str, Tensor]:
        """What each family of networks makes of its streams."""
        if isinstance(self.first, WideLinear):
            return forward_families(self.first, {**self.task.networks, **self.shared.networks}, streams)
        assert isinstance(self.first, nn.ModuleDict)
        own = self.task.columns(self.first, streams[: self.num_tasks])
        return own | self.shared.columns(self.first, streams[self.num_tasks :])

    def _task_gates(self, logits: Tensor) -> Tensor:
        """Logits [T, K + S, B] -> weights [T, E, B], zero at the other tasks' experts."""
        weights = self.task.gate_weights(logits)
        own = weights[:, : self.num_own].permute(1, 2, 0)
        own = torch.diag_embed(own, dim1=0, dim2=1)  # [T, T, K, B]
        return torch.cat([own.flatten(1, 2), weights[:, self.num_own :]], dim=1)


class Streams(nn.Module):
    """Experts and gates of N streams of a kind, behind their first layers.

    Each of `families` is columns: of N * num_experts experts [., H, B], of residuals likewise, of gate logits
    [N, num_reached, B]; without a gate (`num_reached` is 0) there are none.
    """

    def __init__(self, model: ModelConfig, name: str, count: int, *, num_experts: int, num_reached: int) -> None:
        super().__init__()
        self.name, self.count, self.residual = name, count, model.residual
        self.experts = ParallelMLP(
            count * num_experts, model.expert_layers, model.activation, model.dropout, activate_output=True
        )
        self.families = {f"{name}_experts": self.experts.first_layer}
        if model.residual:
            self.families[f"{name}_residuals"] = (count * num_experts, model.expert_layers[-1])
        self.gates, self.gate_weights = None, GateWeights(model)
        if num_reached:
            self.gates = ParallelMLP(count, (*model.gate_layers, num_reached), model.activation, activate_output=False)
            self.families[f"{name}_gates"] = self.gates.first_layer

    @property
    def networks(self) -> dict[str, ParallelMLP]:
        """What follows the first layers, by family."""
        found = {f"{self.name}_experts": self.experts}
        return found if self.gates is None else {**found, f"{self.name}_gates": self.gates}

    def first_layers(self, input_dim: int) -> dict[str, nn.Module]:
        """A first layer for each family whose streams have inputs of their own."""
        return {
            name: ParallelLinear(self.count, input_dim, count // self.count * width)
            for name, (count, width) in self.families.items()
        }

    def columns(self, first: nn.ModuleDict, streams: Tensor) -> dict[str, Tensor]:
        """Columns of the streams' own inputs [N, D, B] -> those of each family, by way of `first_layers`."""
        found, networks = {}, self.networks
        for name, family in self.families.items():
            layer = first[name]
            assert isinstance(layer, ParallelLinear)
            if name in networks:
                found[name] = forward_family(layer, networks[name], streams)
            else:
                found[name] = layer(streams).view(*family, -1)
        return found

    def expert_outputs(self, columns: Mapping[str, Tensor]) -> Tensor:
        """[N * num_experts, H, B], residuals added."""
        experts = columns[f"{self.name}_experts"]
        return experts + columns[f"{self.name}_residuals"] if self.residual else experts


def build(settings: Settings, model: ModelConfig, tasks: Mapping[str, TaskConfig], inputs: InputLayout) -> PLE:
    return PLE(settings, model, tasks, inputs.width)
