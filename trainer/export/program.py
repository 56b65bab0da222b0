"""The forward pass of a bundle as one exported program, and its compilation.

The program owns no weights: they are inputs, so that tables stay where they are mapped. It looks bags up in stacked
tables, pools them, puts features in the order that the top was trained on and applies the top.

Shapes: B rows, F features of a group, N IDs of a group, D width, T tasks.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._export.serde.serialize import serialize
from torch.export import Dim, ExportedProgram, export
from torch.func import functional_call

from trainer.serving.signature import Group

log = logging.getLogger(__name__)
_COMPILE = {"cpp.dynamic_threads": True}
# The wide matrix products are in libtorch, which picks its instructions at run time; what is compiled here is glue.
_COMPILE_X86 = {"cpp.march": "x86-64-v3", "cpp.simdlen": 256}


class Program(nn.Module):
    """(weights, inputs) -> predictions [B, T].

    Args:
        groups: stacked tables; the first weights are theirs.
        feature_order: of the top's input; dense columns come after.
        top: gives its forward pass, not its weights.
        top_names: of the weights after the tables', in the top's state dict.
        predict: logits [B, T] -> predictions [B, T].
    """

    def __init__(
        self,
        groups: Sequence[Group],
        feature_order: Sequence[str],
        dense: bool,
        top: nn.Module,
        top_names: Sequence[str],
        predict: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self._groups, self._dense, self._predict = groups, dense, predict
        self._runs = _runs(groups, feature_order)
        self._top = [top]  # in a list, so that its weights do not become this module's
        self._top_names = list(top_names)

    def forward(self, weights: list[Tensor], inputs: list[Tensor]) -> Tensor:
        left = iter(inputs)
        pooled = []
        for group, table in zip(self._groups, weights, strict=False):
            values, lengths = next(left), next(left)
            pooled.append(pool(table, values, lengths, next(left) if group.weighted else None, group.mean))
        blocks = [pooled[g][first:last].transpose(0, 1).flatten(1) for g, first, last in self._runs]
        if self._dense:
            blocks.append(next(left))
        named = dict(zip(self._top_names, weights[len(self._groups) :], strict=True))
        logits, _ = functional_call(self._top[0], named, (torch.cat(blocks, dim=1),))
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


def _runs(groups: Sequence[Group], feature_order: Sequence[str]) -> list[tuple[int, int, int]]:
    """The feature order as (group, first, last) of neighbours inside a group: one block of columns each."""
    place = {name: (g, f) for g, group in enumerate(groups) for f, name in enumerate(group.features)}
    runs: list[list[int]] = []
    for g, f in (place[name] for name in feature_order):
        if runs and runs[-1][0] == g and runs[-1][2] == f:
            runs[-1][2] += 1
        else:
            runs.append([g, f, f + 1])
    return [(g, first, last) for g, first, last in runs]


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
    if program._dense:
        shapes.append({0: rows})
    with torch.no_grad():
        exported = export(
            program.eval(), (weights, inputs), dynamic_shapes=([None] * len(weights), shapes), strict=False
        )
    assert not exported.state_dict, list(exported.state_dict)
    assert not exported.constants, list(exported.constants)
    return exported


def save_exported(exported: ExportedProgram, path: Path) -> None:
    """Writes the graph as JSON: of `torch.export.save`, which would add pickled tensors, the graph alone."""
    artifact = serialize(
        exported, serialize_state_dict=False, serialize_constants=False, serialize_example_inputs=False
    )
    path.write_bytes(artifact.exported_program)


def compile_program(exported: ExportedProgram, path: Path) -> str | None:
    """Compiles with AOTInductor into `path`; takes about half a minute. Returns why not, where that cannot be done."""
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    options = _COMPILE | (_COMPILE_X86 if torch.backends.cpu.get_cpu_capability().startswith("AVX") else {})
    try:
        get_cpp_compiler()
        aoti_compile_and_package(exported, package_path=str(path), inductor_configs=options)
    except InvalidCxxCompiler:
        return "no C++ compiler (g++ or clang++) was found"
    except CppCompileError as error:
        log.warning("%s", error)
        return "the C++ compiler failed"
    return None
