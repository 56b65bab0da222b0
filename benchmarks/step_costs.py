"""What a training step has to do at least, part by part: floating-point operations, and bytes that must move.

Counted from the shapes of a model and of its batches, in FP32:
- Operations: those of matrix products and of mixing, 2 for a multiply-add. Backward, a product costs as much for each
  operand that needs a gradient: weights and activations do, and of the top's input the columns that tables feed.
- Bytes: IDs, their weights and the lengths of their bags, read once forward and once backward; every distinct row that
  a batch looks up, read forward, read and written backward with its optimizer state; what each layer returns, mixtures
  and the top's input, once forward (where it is written) and once backward (where it is read); gradients of pooled
  rows once; labels, their weights and predictions; dense parameters and their optimizer state read and written and
  their gradients read by the optimizer.

Nothing is counted for handing a batch on, for joining pooled rows, for exchanging with oneself, nor for activations and
other small operations on what is in a register anyway. What a machine makes of it is in `machine`, what a step takes
in `laps`.

Shapes: B batch, D width of the top's input, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from configs.schema import Config
from embeddings.optimizer import RankerOptimizer
from models.build import top_of
from models.fork import Mix, MixFork
from trainer.data.reading.batch import Batch

FLOAT = 4  # bytes
ID = 8
_ROW_STATE = {"rowwise_adagrad": (0, 1), "adagrad": (1, 0), "sgd": (0, 0), "adam": (2, 0)}  # numbers a column, a row
_DENSE_STATE = {"adam": 2, "adamw": 2, "adagrad": 1, "sgd": 0}  # numbers a parameter


class Cost(NamedTuple):
    flops: float = 0
    bytes: float = 0

    def seconds(self, peak: float, copy_rate: float) -> float:
        """At so many operations and bytes a second, one after the other."""
        return self.flops / peak + self.bytes / copy_rate


class TopCost(NamedTuple):
    forward: Cost
    backward: Cost


def top_cost(top: nn.Module, rows: int, width: int, fed: int) -> TopCost:
    """Of a top on the meta device that takes [rows, width]; the first `fed` columns come from tables."""
    x = torch.empty(rows, width, device="meta")
    counted = _Products(x, fed)
    handles = [
        module.register_forward_hook(counted.mixed) for module in top.modules() if isinstance(module, Mix | MixFork)
    ]
    with torch.no_grad(), counted:
        top.eval()(x)
    for handle in handles:
        handle.remove()
    activations = FLOAT * counted.activations
    dense = FLOAT * rows * (width - fed)
    forward = Cost(counted.forward, activations + dense)
    return TopCost(forward, Cost(counted.backward, activations + FLOAT * x.numel()))


class _Products(TorchDispatchMode):
    """Adds up the matrix products that run inside, what their backward passes will cost, and what they return."""

    def __init__(self, x: Tensor, fed: int) -> None:
        super().__init__()
        self.forward = self.backward = self.activations = 0.0
        self._x, self._fed = x, fed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            a, b = args[-2:] if name in ("mm", "bmm") else args[1:3]
            flops = 2 * result.numel() * a.shape[-1]
            self.forward += flops
            self.backward += flops * (self._share_with_gradient(a) + self._share_with_gradient(b))
            self.activations += result.numel()
        return result

    def mixed(self, module: nn.Module, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """A hook: gates [G, E, B], experts [E, H, B] -> [G, H, B]."""
        flops = 2 * output.numel() * inputs[0].shape[1]
        self.forward += flops
        self.backward += 2 * flops
        self.activations += output.numel() + inputs[0].numel()

    def _share_with_gradient(self, operand: Tensor) -> float:
        """1 for weights and activations; of the input itself, or of a slice of it, the columns that tables feed."""
        if operand.untyped_storage()._cdata != self._x.untyped_storage()._cdata:
            return 1.0
        first = operand.storage_offset()
        columns = range(first, first + operand.numel() // len(self._x))
        return len(range(columns.start, min(columns.stop, self._fed))) / len(columns)


class TableCost(NamedTuple):
    forward: Cost
    backward: Cost  # with the fused optimizer


def table_cost(config: Config, batches: Sequence[Batch]) -> TableCost:
    """Of looking up these batches, on average, with the fused optimizer on all tables that have one."""
    features = config.sparse_features
    if not features:
        return TableCost(Cost(), Cost())
    costs = [_lookups(config, batch) for batch in batches]
    ids, rows, state = (sum(numbers) / len(costs) for numbers in zip(*costs, strict=True))
    pooled = FLOAT * len(batches[0].labels) * config.input_layout.dense[0]
    return TableCost(Cost(0, ids + rows + pooled), Cost(0, ids + pooled + 2 * (rows + state)))


def _lookups(config: Config, batch: Batch) -> tuple[float, float, float]:
    """Bytes of the batch's IDs, of the distinct rows that they look up, and of those rows' optimizer state."""
    sparse = batch.sparse
    assert sparse is not None
    weights = sparse.weights_or_none()
    ids = ID * sparse.values().numel() + FLOAT * (
        sparse.lengths().numel() + (0 if weights is None else weights.numel())
    )
    by_table: dict[str, list[Tensor]] = {}
    for name, bags in sparse.to_dict().items():
        by_table.setdefault(config.sparse_features[name].table, []).append(bags.values())
    columns, row = _ROW_STATE[config.training.sparse_optimizer.kind]
    weights_bytes = state_bytes = 0
    for name, values in by_table.items():
        table = config.tables[name]
        distinct = torch.cat(values).unique().numel()
        weights_bytes += distinct * table.embedding_dim * (2 if table.data_type == "fp16" else FLOAT)
        if table.sharding != "data_parallel":
            state_bytes += distinct * FLOAT * (columns * table.embedding_dim + row)
    return ids, weights_bytes, state_bytes


def step_costs(config: Config, batches: Sequence[Batch], optimizer: RankerOptimizer) -> dict[str, Cost]:
    """Of each part of the trainer's step, as `laps` names them; a part without costs is not there."""
    rows, layout = len(batches[0].labels), config.input_layout
    with torch.device("meta"):
        top = top_cost(top_of(config), rows, layout.width, layout.dense[0])
    tables = table_cost(config, batches)
    parameters = sum(parameter.numel() for parameter in optimizer.dense.params.values())
    return {
        "tables forward": tables.forward,
        "top forward": top.forward,
        "loss": loss_cost(rows, len(config.tasks)),
        "top backward": top.backward,
        "tables backward": tables.backward,
        "dense optimizer": dense_optimizer_cost(parameters, config.training.dense_optimizer.kind),
    }


def loss_cost(rows: int, tasks: int) -> Cost:
    """Labels and their weights are read, predictions written."""
    return Cost(0, 3 * FLOAT * rows * tasks)


def dense_optimizer_cost(parameters: int, kind: str) -> Cost:
    """Of a step: gradients are read, parameters and state read and written."""
    return Cost(0, FLOAT * parameters * (1 + 2 * (1 + _DENSE_STATE[kind])))
