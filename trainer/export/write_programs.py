"""Writes the programs of a bundle: the graph, what is compiled of it for this machine, and model.onnx if asked for.

What a program computes is `forward_pass`'s business, tracing and compiling that of `programs`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from configs.schema import Config
from configs.score_formula import evaluate
from models.criterion import Criterion
from trainer.export import programs
from trainer.export.calibration import calibrated
from trainer.export.forward_pass import ForwardPass
from trainer.export.onnx import write_onnx
from trainer.export.sample import generate_columns
from trainer.export.weights import Stored, weight_of
from trainer.serving.bundle import load_weights
from trainer.serving.inputs import program_inputs
from trainer.serving.program import compiled_here, instructions_here
from trainer.serving.signature import (
    GRAPH,
    ONNX,
    SHARED_GRAPH,
    SMALL_GRAPH,
    SMALL_WEIGHTS,
    WEIGHTS,
    Compiled,
    Group,
    Small,
    Weight,
)

Say = Callable[[str], None]
log = logging.getLogger(__name__)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_COMPILED_GAIN = (20, 2.0)  # of the uncompiled program's time at 1 and at 512 rows; measured on one thread


def write_programs(
    folder: Path, config: Config, top: nn.Module, groups: Sequence[Group], stored: Stored, say: Say
) -> tuple[list[Compiled], str | None]:
    """Writes the graph and what is compiled of it, and returns the latter, the fastest first, or why there is none."""
    dtype = DTYPES[config.export.precision]
    forward = ForwardPass(groups, config.input_layout, top, list(stored.top), _outputs(config), dtype)
    return _write_program(folder / GRAPH, "the program", forward, stored.weights, config, say)


def write_shared(
    folder: Path, config: Config, top: nn.Module, groups: Sequence[Group], stored: Stored, say: Say
) -> list[Compiled]:
    """Writes the program for calls whose rows have columns in common, and returns what is compiled of it.

    Where nothing is looked up, there is none: nothing would be looked up once.
    """
    if not groups:
        return []
    dtype = DTYPES[config.export.precision]
    forward = ForwardPass(groups, config.input_layout, top, list(stored.top), _outputs(config), dtype, shared=True)
    what = "the program for rows with columns in common"
    return _write_program(folder / SHARED_GRAPH, what, forward, stored.weights, config, say)[0]


def write_small(
    folder: Path, config: Config, top: nn.Module, groups: Sequence[Group], stored: Stored, say: Say
) -> Small | None:
    """Writes the program for few rows and its top, if the bundle is to have one. How few is still to be measured."""
    if config.export.precision != "bf16" or config.export.device != "cpu":
        return None
    first, end = len(groups), len(groups) + len(stored.top)
    exact = {w.name: t.contiguous() for w, t in zip(stored.weights[first:end], stored.top.values(), strict=True)}
    save_file(exact, folder / SMALL_WEIGHTS)
    own = [weight_of(name, tensor) for name, tensor in exact.items()]
    forward = ForwardPass(groups, config.input_layout, top, list(stored.top), _outputs(config))
    weights = [*stored.weights[:first], *own, *stored.weights[end:]]
    compiled, _ = _write_program(folder / SMALL_GRAPH, "the program for few rows", forward, weights, config, say)
    return Small(rows=0, top=tuple(own), compiled=tuple(compiled))


def _write_program(
    graph: Path, what: str, forward: ForwardPass, weights: Sequence[Weight], config: Config, say: Say
) -> tuple[list[Compiled], str | None]:
    device, compiled = config.export.device, []
    say(f"tracing {what}")
    exported = programs.trace(forward, weights, device)
    programs.save_graph(exported, graph)
    for instructions in instructions_here(device, config.export.precision):
        path = graph.with_suffix(f".{instructions}.pt2")
        say(f"compiling {what} for {instructions}")
        refusal = programs.compile_graph(exported, path, instructions)
        if refusal is not None:
            return compiled, refusal
        compiled.append(compiled_here(path.name, instructions))
    return compiled, None


def _outputs(config: Config) -> Callable[..., Tensor]:
    """Logits [B, T] and numbers of calibrations -> predictions of tasks, calibrated, and the scores that are formulas
    of them [B, T + scores]."""
    criterion, formulas, kinds = Criterion(config.tasks), config.export.scores, config.export.calibration

    def outputs(logits: Tensor, *numbers: Tensor) -> Tensor:
        predictions = criterion.predict(logits)
        if kinds:
            columns = dict(
                zip(config.tasks, zip(predictions.unbind(dim=1), logits.unbind(dim=1), strict=True), strict=True)
            )
            better = {task: calibrated(kinds[task], n, *columns[task]) for task, n in zip(kinds, numbers, strict=True)}
            predictions = torch.stack([better.get(task, plain) for task, (plain, _) in columns.items()], dim=1)
        by_task = dict(zip(config.tasks, predictions.unbind(dim=1), strict=True))
        scores = [evaluate(formula, by_task) for formula in formulas.values()]
        return torch.cat((predictions, torch.stack(scores, dim=1)), dim=1) if scores else predictions

    return outputs


def write_portable(folder: Path, config: Config, top: nn.Module, groups: Sequence[Group], stored: Stored) -> None:
    """Writes model.onnx and its weights."""
    predict = _outputs(config)
    forward = ForwardPass(groups, config.input_layout, top, list(stored.top), predict, portable=True)
    inputs = program_inputs(generate_columns(config, rows=8), groups, config.input_layout.dense_width)
    write_onnx(folder / ONNX, forward, load_weights(folder / WEIGHTS, stored.weights), inputs)


def say_what_it_costs(refusal: str, milliseconds: Mapping[str, float]) -> None:
    """Says why nothing was compiled, and what a call takes without."""
    here = ", ".join(f"{rows} rows {value:.2f} ms" for rows, value in milliseconds.items())
    log.warning(
        "%s: the bundle has the uncompiled program only. It takes here, a call: %s. Compiled, a small model "
        "took 1/%d of that for 1 row and 1/%.1f for 512. Install g++ and export again.",
        refusal,
        here,
        *_COMPILED_GAIN,
    )
