"""A top on paper: layer by layer what it computes, the shape that comes out, and how many numbers it learns.

Only the dense part; the tables are reported where they are planned. Works for any top, one's own too: the lines come
from running a copy without memory (on the meta device) and watching every module that owns parameters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from configs.schema import Config
from configs.text_table import text_table
from models.batched.parallel import ParallelLinear, WideLinear
from models.build import top_of

_BATCH = 104_729  # a prime that no width equals: where it shows up in a shape is the batch


@dataclass(frozen=True)
class Layer:
    """One module that owns parameters, in the order of computation."""

    name: str
    computes: str
    shape: str
    parameters: int


def layers(config: Config) -> list[Layer]:
    """Every layer of the run's top."""
    with torch.device("meta"):
        top = top_of(config).eval()  # in training it may draw, from keys that a batch has
        x = torch.empty(_BATCH, config.input_layout.width)
    found: list[Layer] = []
    for name, module in top.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            _watch(module, name, found)
    with torch.no_grad():
        top(x)
    return found


def describe(config: Config) -> str:
    """A table of `layers` with a head, a total, and a legend of the shapes."""
    found, tasks = layers(config), config.tasks
    total = sum(layer.parameters for layer in found)
    rows = [("layer", "weights", "output", "parameters"), ("input", "", f"[B, {config.input_layout.width}]", "")]
    rows += [(layer.name, layer.computes, layer.shape, f"{layer.parameters:,}") for layer in found]
    rows += [("logits", "", f"[B, {len(tasks)}]", ""), ("total", "", "", f"{total:,}")]
    head = f"{config.model.top}: {len(tasks)} {'task' if len(tasks) == 1 else 'tasks'} ({', '.join(tasks)})"
    legend = (
        'B: rows of a batch. "4 x (64 -> 32)": four networks side by side, each from 64 numbers to 32.\n'
        'Layers called "first: ..." run as one product.'
    )
    return "\n".join([head, "", *text_table(rows, right={3}), "", legend])


def _watch(module: nn.Module, name: str, found: list[Layer]) -> None:
    """Append to `found` when `module` runs: one Layer, or one for each family of a wide first layer."""

    def note(_module: nn.Module, _inputs: object, output: Tensor | dict[str, Tensor]) -> None:
        if isinstance(module, WideLinear):
            assert isinstance(output, dict)
            inputs = module.in_features
            for family, (count, width) in module.families.items():
                computes, size = f"{count} x ({inputs} -> {width})", count * width * (inputs + 1)
                found.append(Layer(f"{name}: {family}", computes, _shape(output[family]), size))
            return
        computes = module.extra_repr() if isinstance(module, ParallelLinear) else type(module).__name__
        size = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        found.append(Layer(name, computes, _shape(output), size))

    module.register_forward_hook(note)


def _shape(output: object) -> str:
    if not isinstance(output, Tensor):
        return ""
    return f"[{', '.join('B' if size == _BATCH else str(size) for size in output.shape)}]"
