"""From the forward pass to the programs of a bundle: traced once, kept as a graph, and compiled.

Shapes: see `forward_pass`.
"""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._export.serde.serialize import serialize
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram

from trainer.export import older_torch
from trainer.export.forward_pass import ForwardPass
from trainer.export.graph_passes import add_biases_apart, see_through_cats
from trainer.serving.signature import Weight

log = logging.getLogger(__name__)
_COMPILE: dict[str, dict[str, Any]] = {
    "avx512": {"cpp.dynamic_threads": True, "cpp.march": "x86-64-v4", "cpp.simdlen": 512},
    "avx2": {"cpp.dynamic_threads": True, "cpp.march": "x86-64-v3", "cpp.simdlen": 256},
    "cpu": {"cpp.dynamic_threads": True},
}


@torch.library.impl("quantized::embedding_bag_4bit_rowwise_offsets", "Meta")
def _sums_of_int4_rows(table: Tensor, values: Tensor, offsets: Tensor, *_: Any, **__: Any) -> Tensor:
    """The shape of what the operator returns, which torch tells of the one for bytes alone."""
    return table.new_empty((offsets.shape[0], 2 * (table.shape[1] - 4)), dtype=torch.float32)


@contextmanager
def _without_future_warnings() -> Iterator[None]:
    """Around torch's own code, which warns of what it does itself, and whoever exports can't change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@_without_future_warnings()
def trace(forward: ForwardPass, weights: Sequence[Weight], device: str) -> ExportedProgram:
    """`forward` as a graph, for any number of rows from 1 on, and any number of IDs. Weights are shapes alone here."""
    rows = Dim("rows", min=1)
    shapes: list[dict[int, Any]] = []
    count, inputs = 4, []
    with FakeTensorMode() as fake:
        tensors = [torch.empty(w.shape, dtype=getattr(torch, w.dtype), device=device) for w in weights]
        for g, group in enumerate(forward.groups):
            ids, width = Dim(f"ids_{g}", min=0), len(group.features)
            bags = Dim(f"bags_{g}", min=1) if forward.shared else rows
            shapes += [{0: ids}, {0: bags}] + ([{0: ids}] if group.weighted else [])
            inputs.append(torch.empty(5 + g, dtype=torch.int64, device=device))
            lengths = (7 + g,) if forward.shared else (count, width)
            inputs.append(torch.empty(lengths, dtype=torch.int32, device=device))
            inputs += [torch.empty(5 + g, device=device)] if group.weighted else []
            if forward.shared:
                shapes.append({0: rows})
                inputs.append(torch.empty((count, width), dtype=torch.int64, device=device))
        if forward.dense_width:
            shapes.append({0: rows})
            inputs.append(torch.empty((count, forward.dense_width), device=device))
    with fake, torch.no_grad():
        exported = older_torch.export(
            forward.eval(), (tensors, inputs), dynamic_shapes=([None] * len(tensors), shapes), strict=False
        )
    assert not exported.state_dict, list(exported.state_dict)
    assert not exported.constants, f"the top makes tensors from numbers, {list(exported.constants)}; use arange"
    see_through_cats(exported.graph_module)
    return exported


@_without_future_warnings()
def save_graph(exported: ExportedProgram, path: Path) -> None:
    """Writes the graph as JSON: of `torch.export.save`, which would add pickled tensors, the graph alone."""
    graph = copy.copy(exported)
    graph.example_inputs = None  # the weights: they would be serialized, and all of it thrown away here
    path.write_bytes(serialize(graph).exported_program)


@_without_future_warnings()
def compile_graph(exported: ExportedProgram, path: Path, instructions: str) -> str | None:
    """Compiles with AOTInductor into `path`, in 10 to 30 s. Returns why not, where that cannot be done.

    Args:
        exported: is changed, to what is compiled well.
        instructions: a key of `_COMPILE`.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    add_biases_apart(exported.graph_module)
    try:
        get_cpp_compiler()
        with older_torch.compiling(_COMPILE[instructions]) as known:
            aoti_compile_and_package(exported, package_path=str(path), inductor_configs=known)
    except InvalidCxxCompiler:
        return "no C++ compiler (g++ or clang++) was found"
    except CppCompileError as error:
        log.warning("%s", error)
        return "the C++ compiler failed"
    return None
