"""A bundle's program as a function of tensors, compiled where this machine can run that, else as an exported graph.

Both take the weights as inputs like any other: nothing is loaded into the program, so the same memory-mapped weights
serve it, and other weights of the same shapes would at once.
"""

import platform
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from trainer.serving.signature import Platform

Program = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""(weights, inputs) -> predictions [B, T]. Shapes and types are not checked: `inputs` does that."""


def this_platform() -> Platform:
    """Where this process runs."""
    return Platform(
        torch=torch.__version__,
        system=platform.system(),
        machine=platform.machine(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
    )


def why_not_here(compiled_for: Platform) -> str | None:
    """What keeps a compiled program from running in this process; None if nothing does."""
    here = this_platform()
    for field in ("torch", "system", "machine"):
        was, now = getattr(compiled_for, field), getattr(here, field)
        if was != now:
            return f"it was compiled for {field} {was}, this is {now}"
    if here.machine == "x86_64":  # compiled for AVX2 whatever the machine that did it had
        return "this processor has no AVX2" if here.cpu_capability in ("DEFAULT", "NO AVX") else None
    if here.cpu_capability != compiled_for.cpu_capability:
        return f"it was compiled for {compiled_for.cpu_capability}, this processor has {here.cpu_capability}"
    return None


def load_compiled(path: Path) -> Program:
    """The machine code of AOTInductor. Several threads may call it; they take turns.

    torch's own loader would unpack it into a folder that stays when the process is killed; this one's is gone as soon
    as the library is loaded.
    """
    with tempfile.TemporaryDirectory(prefix="multigate_") as folder, zipfile.ZipFile(path) as package:
        (library,) = (name for name in package.namelist() if name.endswith(".so"))
        runner = torch._C._aoti.AOTIModelContainerRunnerCpu(package.extract(library, folder), 1)  # pyright: ignore

    def run(weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        return runner.run([*weights, *inputs])[0]

    return run


def load_exported(path: Path) -> Program:
    """The exported graph, operator by operator. `torch.export.load` would unpickle parts of its own file format."""
    from torch._export.serde.serialize import SerializedArtifact, deserialize  # 2 s that a compiled program saves

    module = deserialize(SerializedArtifact(path.read_bytes(), b"", b"", b"")).module()

    @torch.inference_mode()
    def run(weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        return module(list(weights), list(inputs))

    return run
