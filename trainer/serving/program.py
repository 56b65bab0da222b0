"""A bundle's program as a function of tensors: compiled where this machine can run that, else as a graph.

Both take the weights as inputs like any other: nothing is loaded into the program, so the same memory-mapped weights
serve it, and other weights of the same shapes would at once.
"""

import logging
import platform
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from configs.errors import UserError
from trainer.serving.signature import Compiled, Signature

log = logging.getLogger(__name__)
Program = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""(weights, inputs) -> predictions [B, T]. Shapes and types are not checked: `inputs` does that."""
_AVX512, _AVX2 = ("AVX512",), ("AVX512", "AVX2")
_INSTRUCTIONS = {"avx512": _AVX512, "avx2": _AVX2}  # -> processors, as torch calls them, that have these


def instructions_here(device: str, precision: str = "fp32") -> tuple[str, ...]:
    """What a program can be compiled for on this machine, the fastest first; nothing for a GPU, which takes the graph.

    A program that AOTInductor of torch 2.11 had compiled for an H200 ended the process when it was loaded. All
    processors with BF16 have the fastest ones.
    """
    if device == "cuda":
        return ()
    capability = torch.backends.cpu.get_cpu_capability()
    wide = tuple(name for name, processors in _INSTRUCTIONS.items() if capability in processors)
    return (wide or ("cpu",))[: 1 if precision == "bf16" else None]


def compiled_here(file: str, instructions: str) -> Compiled:
    """The record of a program that this process compiled."""
    return Compiled(
        file=file,
        instructions=instructions,
        torch=torch.__version__,
        system=platform.system(),
        machine=platform.machine(),
        processor=torch.backends.cpu.get_cpu_capability(),
    )


def why_not_here(compiled: Compiled) -> str | None:
    """What keeps a compiled program from running in this process; None if nothing does."""
    here = compiled_here(compiled.file, compiled.instructions)
    for field in ("torch", "system", "machine"):
        was, now = getattr(compiled, field), getattr(here, field)
        if was != now:
            return f"it was compiled for {field} {was}, this is {now}"
    if compiled.instructions in _INSTRUCTIONS:
        has = torch.backends.cpu.get_cpu_capability() in _INSTRUCTIONS[compiled.instructions]
        return None if has else f"this processor has no {compiled.instructions.upper()}"
    if compiled.processor != here.processor:
        return f"it was compiled for {compiled.processor}, this is {here.processor}"
    return None


def refuse_device(signature: Signature, folder: Path) -> None:
    """Raises UserError where this machine has not what the bundle computes with."""
    if signature.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"{folder} computes on a GPU, and torch {torch.__version__} finds none here\n"
            "Export the run with --device cpu, or serve it on a machine with a GPU."
        )
    if signature.precision == "bf16" and not has_bf16(signature.device):
        raise UserError(
            f"the top of {folder} is BF16, which this processor has not: torch would emulate it, at 30 times the time "
            "of FP32\nExport the run with --precision fp32, or serve it on a processor with AVX512_BF16 or AMX."
        )


def has_bf16(device: str) -> bool:
    """Whether this machine multiplies matrices in BF16, other than by emulation."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    if platform.machine() == "x86_64":
        return torch.cpu._is_avx512_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def load_program(graph: Path, compiled: Sequence[Compiled]) -> tuple[Program, Compiled | None]:
    """The first that runs here of those compiled of a graph, and which it is; else the graph, and None."""
    reasons = []
    for candidate in compiled:
        reason = why_not_here(candidate)
        if reason is None:
            return load_compiled(graph.parent / candidate.file), candidate
        reasons.append(f"{candidate.file} is not used: {reason}")
    if reasons:
        log.warning("%s. The uncompiled program is slower; export the run here.", "; ".join(reasons))
    return load_graph(graph), None


def load_compiled(path: Path) -> Program:
    """The machine code of AOTInductor. Several threads may call it; they take turns.

    torch's own loader would unpack it into a folder that stays when the process is killed; this one's is gone as soon
    as the library is loaded.
    """
    with tempfile.TemporaryDirectory(prefix="multigate_") as folder, zipfile.ZipFile(path) as package:
        for name in package.namelist():
            if name.endswith((".so", ".json")):  # the latter: which operators it calls by name, as those for int8
                Path(folder, Path(name).name).write_bytes(package.read(name))
        (library,) = Path(folder).glob("*.so")
        runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1)  # pyright: ignore

    def run(weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        return runner.run([*weights, *inputs])[0]

    return run


def load_graph(path: Path) -> Program:
    """The graph, operator by operator. `torch.export.load` would unpickle parts of its own file format."""
    from torch._export.serde.serialize import SerializedArtifact, deserialize  # 2 s that a compiled program saves

    module = deserialize(SerializedArtifact(path.read_bytes(), b"", b"", b"")).module()

    @torch.inference_mode()
    def run(weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        return module(list(weights), list(inputs))

    return run
