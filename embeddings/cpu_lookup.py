"""Rows of a group of tables on a CPU: fbgemm's kernels, called without what they do that nobody needs.

- Weights of IDs come from data, so they get no gradient.
- The pooled rows may leave room at their right for other columns, so that nobody has to copy them to where those are.
- Rows are updated by the faster of two kernels. fbgemm has a compiled one for tables that one feature reads, and a
  plain one for tables that several read. On some processors the compiled one takes six times as long for row-wise
  Adagrad. The plain one takes such a table too, when it is given a second feature that has no IDs.

Shapes: B batch, F features, T those of them that are the only one to read their table.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection

from configs.formulations import fastest

_NAMES = {
    EmbOptimType.EXACT_ROWWISE_ADAGRAD: "rowwise_adagrad",
    EmbOptimType.EXACT_ADAGRAD: "adagrad",
    EmbOptimType.EXACT_SGD: "sgd",
}


class _Layout(NamedTuple):
    """Which table each feature reads, and which columns it fills: arguments of fbgemm's operators."""

    placements: Tensor
    tables: Tensor
    columns: Tensor
    rows: Tensor
    state: tuple[Tensor, ...]  # placements and offsets of the optimizer's
    widened: Tensor | None = None  # int64: the place of each feature among those, and then of each that has no IDs
    repeated: Tensor | None = None  # int64 [T]: the features that those without IDs follow


class CpuLookup:
    """Takes the place of `forward` of one of fbgemm's modules; `knows` says of which.

    Attributes:
        before_update: called before rows are updated, by whoever has to.
    """

    def __init__(self, tables: SplitTableBatchedEmbeddingBagsCodegen) -> None:
        self.before_update: Callable[[], None] | None = None
        self.tables = tables
        self.width = int(tables.total_D)
        self.update = getattr(torch.ops.fbgemm, f"split_embedding_backward_codegen_{_NAMES[tables.optimizer]}_cpu")
        state = () if tables.optimizer == EmbOptimType.EXACT_SGD else _tensors(tables, "momentum1")
        placements, offsets = _tensors(tables, "weights")
        columns, rows = cast(Tensor, tables.D_offsets), cast(Tensor, tables.hash_size_cumsum)
        self.layout = _Layout(placements, offsets, columns, rows, state)
        self.plain_layout = _with_second_features(self.layout)

    @staticmethod
    def knows(tables: SplitTableBatchedEmbeddingBagsCodegen) -> bool:
        return bool(tables.use_cpu) and tables.optimizer in _NAMES

    def __call__(
        self, indices: Tensor, offsets: Tensor, per_sample_weights: Tensor | None = None, room: int = 0
    ) -> Tensor:
        """IDs [N], bags' offsets [F * B + 1], weights [N] -> [B, width + room], of which the last are not written."""
        indices, offsets, weights, _ = self.tables.prepare_inputs(indices, offsets, per_sample_weights)
        return _Lookup.apply(self.tables.weights_host, self, indices, offsets, weights, room)  # pyright: ignore[reportReturnType]

    def rows(self, indices: Tensor, offsets: Tensor, weights: Tensor | None, room: int) -> Tensor:
        layout, tables = self.layout, self.tables
        return torch.ops.fbgemm.split_embedding_codegen_forward_cpu(
            tables.weights_host,
            layout.tables,
            layout.columns,
            self.width + room,
            layout.rows,
            indices,
            offsets,
            tables.pooling_mode,
            weights,
            tables.output_dtype,
        )

    def train(self, grad: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None) -> None:
        """One step of the optimizer, for the gradient [B, width + room] of what `rows` returned."""
        if self.before_update is not None:
            self.before_update()
        self._way()(grad, indices, offsets, weights)

    def try_updates(self, *arguments: Any) -> None:
        """Has the faster kernel found out on these arguments of `train`, which repeats the step."""
        self._way(*arguments)

    def _way(self, *arguments: Any) -> Callable[..., None]:
        if self.tables.optimizer != EmbOptimType.EXACT_ROWWISE_ADAGRAD:  # for the others there is a plain one only
            return self.train_compiled
        ways = {"compiled": self.train_compiled, "plain": self.train_plain}
        return fastest("update of rows", ways, *arguments)

    def train_compiled(self, grad: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None) -> None:
        self._train(self.layout, grad, indices, offsets, weights)

    def train_plain(self, grad: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None) -> None:
        layout = self.plain_layout
        if layout.widened is not None and layout.repeated is not None:
            features, bags = len(self.layout.columns) - 1, (len(offsets) - 1) // (len(self.layout.columns) - 1)
            starts = offsets[:-1].view(features, bags)
            ends = offsets[bags::bags][layout.repeated].unsqueeze(1).expand(-1, bags)
            widened = offsets.new_empty(len(layout.widened) * bags + 1)
            widened[:-1].view(-1, bags).index_copy_(0, layout.widened, torch.cat([starts, ends]))
            widened[-1] = offsets[-1]
            offsets = widened
        self._train(layout, grad, indices, offsets, weights)

    def _train(self, layout: _Layout, grad: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None) -> None:
        tables, arguments = self.tables, self.tables.optimizer_args
        state: list[Any] = [] if tables.optimizer == EmbOptimType.EXACT_SGD else [tables.momentum1_host, *layout.state]
        settings = {"learning_rate_tensor": tables.learning_rate_tensor, "output_dtype": tables.output_dtype}
        if state:
            settings["eps"] = arguments.eps
        if tables.optimizer == EmbOptimType.EXACT_ROWWISE_ADAGRAD:
            settings["weight_decay_mode"] = arguments.weight_decay_mode
        self.update(
            grad.contiguous(),
            tables.weights_host,
            layout.placements,
            layout.tables,
            layout.columns,
            tables.max_D,
            layout.rows,
            tables.total_hash_size_bits,
            indices,
            offsets,
            tables.pooling_mode,
            weights,
            arguments.stochastic_rounding,
            *state,
            **settings,
        )


def look_up_on_cpu(tables: ShardedEmbeddingBagCollection) -> None:
    """Puts a CpuLookup into every group of `tables` that this rank holds, where there is one for it."""
    for lookup in tables._lookups:
        for group in getattr(lookup, "_emb_modules", ()):
            kernels = group.emb_module
            if isinstance(kernels, SplitTableBatchedEmbeddingBagsCodegen) and CpuLookup.knows(kernels):
                kernels.forward = CpuLookup(kernels)  # pyright: ignore[reportAttributeAccessIssue]


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        parameter: Tensor,
        lookup: CpuLookup,
        indices: Tensor,
        offsets: Tensor,
        weights: Tensor | None,
        room: int,
    ) -> Tensor:
        """`parameter` is there for autograd, which asks for gradients where something can be trained."""
        ctx.lookup = lookup
        ctx.save_for_backward(indices, offsets, weights)
        return lookup.rows(indices, offsets, weights, room)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        ctx.lookup.train(grad, *ctx.saved_tensors)
        return None, None, None, None, None, None


def _tensors(tables: SplitTableBatchedEmbeddingBagsCodegen, name: str) -> tuple[Tensor, Tensor]:
    return getattr(tables, f"{name}_placements"), getattr(tables, f"{name}_offsets")


def _with_second_features(layout: _Layout) -> _Layout:
    """The layout with a feature of no columns behind each that is alone to read its table."""
    tables = layout.tables.tolist()
    order, widened, empty, repeated = [], [], [], []
    for feature, table in enumerate(tables):
        widened.append(len(order))
        order.append(feature)
        if tables.count(table) == 1:
            empty.append(len(order))
            order.append(feature)
            repeated.append(feature)
    if not repeated:
        return layout
    chosen = torch.tensor(order)
    is_empty = torch.zeros(len(order), dtype=torch.bool)
    is_empty[empty] = True
    columns = torch.cat([layout.columns[chosen + is_empty], layout.columns[-1:]])
    rows = torch.cat([layout.rows[chosen], layout.rows[-1:]])
    state = tuple(tensor[chosen] for tensor in layout.state)
    return _Layout(
        layout.placements[chosen],
        layout.tables[chosen],
        columns,
        rows,
        state,
        torch.tensor(widened + empty),
        torch.tensor(repeated),
    )


def try_updates(width: int) -> None:
    """Lets `configs.formulations` measure which kernel updates rows faster here, on tables of a few thousand rows."""
    specification = (5_000, width, EmbeddingLocation.HOST, ComputeDevice.CPU)
    tables = SplitTableBatchedEmbeddingBagsCodegen([specification] * 4, optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD)
    lookup, bags = CpuLookup(tables), 2_048
    indices = (torch.arange(4 * bags) * 2_654_435_761 >> 7) % 5_000
    lookup.try_updates(torch.ones(bags, lookup.width), indices, torch.arange(4 * bags + 1), None)
