"""The portable form of a bundle: model.onnx, for servers that know nothing of this project.

It takes row numbers of the stacked tables, not raw columns: ONNX has no 64-bit hash, so transforms stay outside. What
it takes is what `trainer.serving.inputs` makes, under these names, for every group of tables:

    ids.GROUP       int64 [N]       row by row, in a row feature by feature; first_rows of the group are added already
    lengths.GROUP   int32 [B, F]    how many of them each bag has
    weights.GROUP   float [N]       only of weighted groups
    dense           float [B, D]    if there are dense features

and it gives predictions [B, T]. An embedding bag would become a loop in ONNX; rows are gathered and added instead.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.export import Dim

from configs.errors import UserError
from configs.export_config import ExportConfig
from embeddings.features.feature_transforms import Columns
from trainer.export.forward_pass import ForwardPass
from trainer.serving.inputs import program_inputs
from trainer.serving.signature import ONNX, Group

log = logging.getLogger(__name__)
_MISSING = 'export.format is onnx, which needs packages that are not installed: {}\nInstall them: pip install ".[onnx]"'


def check_onnx(settings: ExportConfig, formats: set[str]) -> None:
    """Raises UserError for what the portable form cannot be. formats: of the rows of tables."""
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(_MISSING.format(error.name)) from None
    odd = (formats - {"fp32", "fp16"}) | ({settings.precision} - {"fp32"}) | ({settings.device} - {"cpu"})
    if odd:
        raise UserError(
            f"export.format is onnx, which has fp32 tops and fp32 or fp16 tables, for a CPU; not {', '.join(odd)}\n"
            "Export the other form into another folder, with --out."
        )


def write_onnx(path: Path, forward: ForwardPass, weights: Sequence[Tensor], inputs: list[Tensor]) -> None:
    """Writes `forward` with its weights, which stand in a file beside it.

    Args:
        forward: with sums that add gathered rows.
        inputs: an example of 2 rows or more, with at least 2 IDs in every group.
    """
    rows = Dim("rows", min=1)
    shapes: list[dict[int, Any]] = []
    for g, group in enumerate(forward.groups):
        ids = Dim(f"ids_{g}", min=0)
        shapes += [{0: ids}, {0: rows}] + ([{0: ids}] if group.weighted else [])
    shapes += [{0: rows}] if forward.dense_width else []
    with torch.no_grad():
        torch.onnx.export(
            _WithWeights(forward, weights).eval(),
            tuple(inputs),
            str(path),
            input_names=input_names(forward.groups, forward.dense_width),
            output_names=["predictions"],
            dynamic_shapes=(tuple(shapes),),
            external_data=True,
            dynamo=True,
            verbose=False,
        )


def input_names(groups: Sequence[Group], dense_width: int) -> list[str]:
    """Names of the inputs, in the order of `program_inputs`."""
    names = []
    for group in groups:
        names += [f"ids.{group.name}", f"lengths.{group.name}"] + ([f"weights.{group.name}"] if group.weighted else [])
    return names + (["dense"] if dense_width else [])


def onnx_predictions(
    folder: Path, groups: Sequence[Group], dense_width: int, columns: Columns
) -> npt.NDArray[np.float32]:
    """Predictions [B, T] of transformed rows, by ONNX Runtime."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
    inputs = program_inputs(columns, groups, dense_width)
    named = zip(input_names(groups, dense_width), inputs, strict=True)
    return np.asarray(session.run(None, {name: tensor.numpy() for name, tensor in named})[0])


class _WithWeights(nn.Module):
    """A forward pass that owns its weights, as ONNX has it."""

    def __init__(self, forward: ForwardPass, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self._forward_pass, self._count = [forward], len(weights)
        for place, weight in enumerate(weights):
            self.register_buffer(f"weight_{place}", weight)

    def forward(self, *inputs: Tensor) -> Tensor:
        weights = [self.get_buffer(f"weight_{place}") for place in range(self._count)]
        return self._forward_pass[0](weights, list(inputs))
