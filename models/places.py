"""What each place along a dimension of a weight of the top stands for: an input column, an expert, a task.

Tops compute many networks in one tensor, and all features are one matrix, so a run with one more feature or task has
larger tensors. With the places of two runs, a weight of one is found in the other. A top of one's own, of which nothing
is known here, has weights that fit as a whole or not at all.

Shapes: N networks, D input width.
"""

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import nn

from configs.layout import InputLayout
from configs.schema import Config
from models.batched.parallel import ParallelLinear, ParallelMLP, WideLinear
from models.build import top_of
from models.experts import MixtureOfExperts
from models.side_towers import WithSideTowers
from models.tops.dlrm import DLRM
from models.tops.mmoe import MMoE
from models.tops.moe import MoE
from models.tops.ple import PLE, Level, Streams
from models.tops.shared_bottom import SharedBottom
from models.tops.single_task import SingleTask
from models.towers import Towers

Axis = Sequence[tuple[Hashable, int]]
"""Who, from place 0 on, has how many places. Nobody: the places have no meaning of their own, as hidden units."""
Block = tuple[Hashable, ...]
Slices = tuple[slice, ...]


class Part(NamedTuple):
    """Where a block lies."""

    weight: str  # by its name in the top
    slices: Slices


class _Places(NamedTuple):
    """name: the same in every run that has the weight. axes: of its dimensions."""

    name: str
    axes: tuple[Axis, ...]


def blocks_of(config: Config) -> dict[Block, Part]:
    """All weights of the run's top, cut to blocks that belong to one feature, expert or task each.

    A block is named as in every run that has it.
    """
    with torch.device("meta"):
        top = top_of(config)
    known = {place.weight: place for place in _known(top, config)}
    found: dict[Block, Part] = {}
    for name, weight in top.state_dict().items():
        places = known[name].places if name in known else _Places(name, tuple([(None, size)] for size in weight.shape))
        assert tuple(sum(size for _, size in axis) for axis in places.axes) == weight.shape, (
            name,
            places,
            weight.shape,
        )
        for cut in itertools.product(*(_cut(axis) for axis in places.axes)):
            found[(places.name, *(who for who, _ in cut))] = Part(name, tuple(where for _, where in cut))
    return found


def _cut(axis: Axis) -> Iterator[tuple[Hashable, slice]]:
    start = 0
    for who, size in axis:
        yield who, slice(start, start + size)
        start += size


class _Known(NamedTuple):
    weight: str
    places: _Places


def _named(path: str, name: str, weight: tuple[Axis, ...], bias: tuple[Axis, ...] | None = None) -> Iterator[_Known]:
    """A layer at `path` of the top; `name` as in `_Places`. bias: its dimensions, the weight's without the last."""
    yield _Known(f"{path}.weight", _Places(f"{name}.weight", weight))
    yield _Known(f"{path}.bias", _Places(f"{name}.bias", weight[:-1] if bias is None else bias))


def _known(top: nn.Module, config: Config) -> Iterator[_Known]:
    layout, tasks = config.input_layout, list(config.tasks)
    if isinstance(top, WithSideTowers):
        for task, spans in top.spans.items():
            columns = [
                (feature, end - start)
                for feature, (start, end) in zip(config.tasks[task].tower_features, spans, strict=True)
            ]
            if spans:
                hidden = cast(nn.Linear, cast(nn.Sequential, top.side[task])[0]).out_features
                yield from _named(f"side.{task}.0", f"side.{task}.0", ([(None, hidden)], columns))
        for known in _known(top.top, config):
            yield known._replace(weight=f"top.{known.weight}")
        return
    columns = _columns(layout)
    if isinstance(getattr(top, "normalization", None), nn.LayerNorm):
        yield from _named("normalization", "normalization", (columns,), (columns,))
    if isinstance(top, MMoE | MoE):
        gates = tasks if isinstance(top, MMoE) else ["all"]
        yield from _of_mixture("mixture", top.mixture, columns, gates)
    elif isinstance(top, SharedBottom | SingleTask):
        name, mlp = ("bottom", top.bottom) if isinstance(top, SharedBottom) else ("bottoms", top.bottoms)
        members = ["all"] if isinstance(top, SharedBottom) else tasks
        yield from _wide("first", top.first, columns, {name: members}, {})
        yield from _networks(name, mlp, members)
    elif isinstance(top, PLE):
        for index, level in enumerate(top.levels):
            yield from _of_level(f"levels.{index}", cast(Level, level), columns, tasks)
    elif isinstance(top, DLRM):
        yield from _of_dlrm(top, layout)
    if isinstance(towers := getattr(top, "towers", None), Towers):
        yield from _of_towers(towers, config)


def _columns(layout: InputLayout) -> Axis:
    return [(feature, end - start) for feature, (start, end) in layout.spans.items()]


def _wide(
    path: str,
    layer: WideLinear,
    columns: Axis,
    members: Mapping[str, Sequence[Hashable]],
    widths: Mapping[str, Axis],
) -> Iterator[_Known]:
    """members: family -> whose the networks are. widths: family -> what a network's outputs are, if they have names."""
    rows = [
        ((family, member, who), size)
        for family, (_, width) in layer.families.items()
        for member in members[family]
        for who, size in widths.get(family, [(None, width)])
    ]
    yield from _named(path, path, (rows, columns))


def _networks(
    path: str, networks: ParallelMLP, members: Sequence[Hashable], outputs: Axis | None = None, name: str = ""
) -> Iterator[_Known]:
    """Layers behind the first, of networks that belong to `members`. outputs: what those of the last layer are."""
    whose = [(member, 1) for member in members]
    for index, layer in enumerate(cast(Sequence[ParallelLinear], networks.layers)):
        is_last = index == len(networks.layers) - 1
        out: Axis = outputs if outputs and is_last else [(None, layer.out_features)]
        yield from _named(
            f"{path}.layers.{index}", f"{name or path}.layers.{index}", (whose, out, [(None, layer.in_features)])
        )


def _of_mixture(path: str, mixture: MixtureOfExperts, columns: Axis, gates: Sequence[str]) -> Iterator[_Known]:
    experts = [("expert", index) for index in range(mixture.num_experts)]
    members = {"experts": experts, "gates": gates, "residuals": experts}
    reached = [(expert, 1) for expert in experts]
    widths = {} if mixture.gates.layers else {"gates": reached}
    yield from _wide(f"{path}.first", mixture.first, columns, members, widths)
    yield from _networks(f"{path}.experts", mixture.experts, experts)
    yield from _networks(f"{path}.gates", mixture.gates, gates, reached)


def _of_level(path: str, level: Level, columns: Axis, tasks: Sequence[str]) -> Iterator[_Known]:
    own = [(task, index) for task in tasks for index in range(level.num_own)]
    shared = [("shared", index) for index in range(level.shared.experts.count // level.shared.count)]
    members: dict[str, Sequence[Hashable]] = {}
    widths: dict[str, Axis] = {}
    for streams, whose, experts in ((level.task, tasks, own), (level.shared, ["shared"], shared)):
        kind = streams.name
        members |= {f"{kind}_experts": experts, f"{kind}_residuals": experts, f"{kind}_gates": whose}
        yield from _networks(f"{path}.{kind}.experts", streams.experts, experts)
        if streams.gates is None:
            continue
        mine = [("own", index) for index in range(level.num_own)] if kind == "task" else own
        reached = [(expert, 1) for expert in (*mine, *shared)]
        if not streams.gates.layers:
            widths[f"{kind}_gates"] = reached
        yield from _networks(f"{path}.{kind}.gates", streams.gates, whose, reached)
    if isinstance(level.first, WideLinear):
        yield from _wide(f"{path}.first", level.first, columns, members, widths)
        return
    for streams, whose in ((level.task, tasks), (level.shared, ["shared"])):
        yield from _first_layers(f"{path}.first", streams, cast(nn.ModuleDict, level.first), whose, widths)


def _first_layers(
    path: str, streams: Streams, first: nn.ModuleDict, whose: Sequence[str], widths: Mapping[str, Axis]
) -> Iterator[_Known]:
    """Of a level whose streams have inputs of their own: [N, networks of a stream * width, D]."""
    for family, (count, width) in streams.families.items():
        layer = cast(ParallelLinear, first[family])
        networks = range(count // streams.count)
        outputs = [((network, who), size) for network in networks for who, size in widths.get(family, [(None, width)])]
        axes = ([(stream, 1) for stream in whose], outputs, [(None, layer.in_features)])
        yield from _named(f"{path}.{family}", f"{path}.{family}", axes)


def _of_dlrm(top: DLRM, layout: InputLayout) -> Iterator[_Known]:
    spans = layout.spans
    dense = [(feature, end - start) for feature, (start, end) in spans.items() if feature not in layout.sparse]
    first, last = cast(nn.Linear, top.bottom[0]), cast(nn.Linear, top.bottom[-2])
    yield from _named("bottom.0", "bottom.0", ([(None, first.out_features)], dense))
    bottom = [(("bottom",), last.out_features)]
    joined = [*bottom, *((feature, spans[feature][1] - spans[feature][0]) for feature in layout.sparse)]
    for index, layer in enumerate(top.cross):
        rank = [(None, cast(nn.Linear, cast(nn.Sequential, layer)[1]).in_features)]
        yield _Known(f"cross.{index}.0.weight", _Places(f"cross.{index}.0.weight", (rank, joined)))
        yield from _named(f"cross.{index}.1", f"cross.{index}.1", (joined, rank))
    vectors = [("bottom",), *layout.sparse]
    pairs = [(frozenset((vectors[a], vectors[b])), 1) for a in range(len(vectors)) for b in range(a)]
    inputs = [*bottom, *pairs] if top.interaction == "dot" else joined
    yield from _named("top.0", "top.0", ([(None, cast(nn.Linear, top.top[0]).out_features)], inputs))


def _of_towers(towers: Towers, config: Config) -> Iterator[_Known]:
    """Tasks with equal widths are a group, and a new task may change the groups: a tower is found by its task."""
    tasks = list(config.tasks)
    for index, members in enumerate(towers.grouping.groups):
        path, name = f"towers.groups.{index}", "towers"
        group, whose = towers.groups[index], [tasks[member] for member in members]
        first, rest = cast(ParallelLinear, group.first), cast(ParallelMLP, group.rest)
        of_first = ([(task, 1) for task in whose], [(None, first.out_features)], [(None, first.in_features)])
        yield from _named(f"{path}.first", f"{name}.first", of_first)
        yield from _networks(f"{path}.rest", rest, whose, name=f"{name}.rest")
    for index, (child, _) in enumerate(towers.transfers.pairs):
        for layer in ("information", "attention"):
            of_layer = cast(nn.Linear, getattr(towers.transfers.transfers[index], layer))
            axes: tuple[Axis, ...] = ([(None, of_layer.out_features)], [(None, of_layer.in_features)])
            yield from _named(
                f"towers.transfers.transfers.{index}.{layer}", f"towers.transfers.{tasks[child]}.{layer}", axes
            )
