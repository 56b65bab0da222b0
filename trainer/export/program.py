"""The forward pass of a bundle as one exported program, and its compilation.

The program owns no weights: they are inputs, so that tables stay where they are mapped. It looks bags up in stacked
tables, pools them, lays the features out as the top was trained on them and applies the top.

Shapes: B rows, F features of a group, N IDs of a group, D width, T tasks.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._export.serde.serialize import serialize
from torch.export import Dim, ExportedProgram
from torch.func import functional_call

from configs.layout import InputLayout
from trainer.export import older_torch
from trainer.serving.signature import Group

log = logging.getLogger(__name__)
_COMPILE = {"cpp.dynamic_threads": True}
# The wide matrix products are in libtorch, which picks its instructions at run time; what is compiled here is glue.
_COMPILE_X86 = {"cpp.march": "x86-64-v3", "cpp.simdlen": 256}


class Program(nn.Module):
    """(weights, inputs) -> predictions [B, T].

    Args:
        groups: stacked tables; the first weights are theirs.
        layout: of the top's input.
        top: gives its forward pass, not its weights.
        top_names: of the weights after the tables', in the top's state dict.
        predict: logits [B, T] -> predictions [B, T].
    """

    def __init__(
        self,
        groups: Sequence[Group],
        layout: InputLayout,
        top: nn.Module,
        top_names: Sequence[str],
        predict: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self._groups, self._layout, self._predict = groups, layout, predict
        self._runs = _runs(groups, layout)
        self._top = [top]  # in a list, so that its weights do not become this module's
        self._top_names = list(top_names)

    def forward(self, weights: list[Tensor], inputs: list[Tensor]) -> Tensor:
        left = iter(inputs)
        pooled = []
        for group, table in zip(self._groups, weights, strict=False):
            values, lengths = next(left), next(left)
            pooled.append(pool(table, values, lengths, next(left) if group.weighted else None, group.mean))
        dense = next(left) if self._layout.dense_width else None
        blocks = [dense if run is None else _side_by_side(pooled[run.group], run) for run in self._runs]
        named = dict(zip(self._top_names, weights[len(self._groups) :], strict=True))
        logits, _ = functional_call(
            self._top[0], named, (torch.cat([block for block in blocks if block is not None], dim=1),)
        )
        return self._predict(logits)


def pool(table: Tensor, values: Tensor, lengths: Tensor, weights: Tensor | None, mean: Sequence[bool]) -> Tensor:
    """Bags of rows of `table` [R, D], IDs [N], lengths [F, B] -> sums, or means where `mean[f]`, [F, B, D] in float32.

    As in torchrec, a mean divides by the number of IDs, weighted or not, and an empty bag is zero.
    """
    flat = lengths.flatten().long()
    offsets = flat.cumsum(0) - flat
    if table.dtype != torch.float32:  # embedding_bag would sum in the table's own precision
        table, values = table[values].float(), torch.arange(values.shape[0], device=values.device)
    bags = nn.functional.embedding_bag(values, table, offsets, mode="sum", per_sample_weights=weights)
    bags = bags.view(lengths.shape[0], lengths.shape[1], table.shape[1])
    if not any(mean):
        return bags
    counts = lengths.clamp(min=1).to(bags.dtype)[:, :, None]
    if all(mean):
        return bags / counts
    return torch.stack([bags[f] / counts[f] if mean[f] else bags[f] for f in range(len(mean))])


class _Run(NamedTuple):
    """Features [first, last) of a group."""

    group: int
    first: int
    last: int


def _runs(groups: Sequence[Group], layout: InputLayout) -> list[_Run | None]:
    """The layout as runs of neighbours inside a group, of which each is one block of columns; None is the dense one."""
    place = {name: _Run(g, f, f + 1) for g, group in enumerate(groups) for f, name in enumerate(group.features)}
    runs: list[_Run | None] = []
    for one in layout.in_order(place, None):
        before = runs[-1] if runs else None
        if one and before and (before.group, before.last) == (one.group, one.first):
            runs[-1] = before._replace(last=one.last)
        else:
            runs.append(one)
    return runs


def _side_by_side(pooled: Tensor, run: _Run) -> Tensor:
    """[F, B, D] of a group -> the columns [B, ...] of a run's features."""
    return pooled[run.first : run.last].transpose(0, 1).flatten(1)


def export_program(program: Program, weights: list[Tensor], inputs: list[Tensor]) -> ExportedProgram:
    """Traces `program` for any number of rows from 1 on, and any number of IDs.

    Args:
        weights: never copied or read, only their shapes count.
        inputs: an example of 2 rows or more, with at least 2 IDs in every group.
    """
    rows = Dim("rows", min=1)
    shapes: list[dict[int, Dim]] = []
    for g, group in enumerate(program._groups):
        ids = Dim(f"ids_{g}", min=0)
        shapes += [{0: ids}, {1: rows}] + ([{0: ids}] if group.weighted else [])
    if program._layout.dense_width:
        shapes.append({0: rows})
    with torch.no_grad():
        exported = older_torch.export(
            program.eval(), (weights, inputs), dynamic_shapes=([None] * len(weights), shapes), strict=False
        )
    assert not exported.state_dict, list(exported.state_dict)
    assert not exported.constants, list(exported.constants)
    return exported


def save_exported(exported: ExportedProgram, path: Path) -> None:
    """Writes the graph as JSON: of `torch.export.save`, which would add pickled tensors, the graph alone."""
    graph = copy.copy(exported)
    graph.example_inputs = None  # the weights: they would be serialized, and all of it thrown away here
    path.write_bytes(serialize(graph).exported_program)


def compile_program(exported: ExportedProgram, path: Path) -> str | None:
    """Compiles with AOTInductor into `path`; takes about half a minute. Returns why not, where that cannot be done."""
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    options = _COMPILE | (_COMPILE_X86 if torch.backends.cpu.get_cpu_capability().startswith("AVX") else {})
    try:
        get_cpp_compiler()
        with older_torch.compiling(options) as known:
            aoti_compile_and_package(exported, package_path=str(path), inductor_configs=known)
    except InvalidCxxCompiler:
        return "no C++ compiler (g++ or clang++) was found"
    except CppCompileError as error:
        log.warning("%s", error)
        return "the C++ compiler failed"
    return None
