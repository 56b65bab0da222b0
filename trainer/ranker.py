"""The whole model: tables, top and objective as one module that a train pipeline can drive.

Tables are `embeddings`' business, the top and its losses `models`'; here they only meet. One row goes: IDs -> pooled
rows of the tables, beside the dense columns -> top -> logits -> predictions and losses.

B batch, T tasks, D width of everything that enters the top.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from configs.schema import Config
from embeddings.alone import RowsWithRoom
from embeddings.pooling import pooled_by_feature
from models.draws import share_row_keys
from trainer.data.reading.batch import Batch
from trainer.run.saved_names import OBJECTIVE, TABLES, TOP
from trainer.skipping import BatchCheck, Shield


class Outputs(NamedTuple):
    """What a step leaves for metrics and telemetry, detached."""

    loss: Tensor  # []: what this rank minimizes
    task_losses: Tensor  # [T]: sums over this rank's rows
    predictions: Tensor  # [B, T]
    labels: Tensor  # [B, T]
    weights: Tensor  # [B, T]
    gates: dict[str, Tensor]  # level -> [B, gates, experts]
    is_sound: Tensor  # []: whether the loss is a number: this rank's, or, where batches may be left out, that of all


class JoinInputs(nn.Module):
    """Pooled rows of every sparse feature, and the dense features -> [B, D], as the layout says.

    Sharded tables give their features back grouped by sharding type, so that order must not be taken as it comes: a
    run may resume with other types, and a bundle has none.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._layout = config.input_layout
        self._means = tuple(name for name, table in config.tables_by_feature.items() if table.pooling == "mean")

    def forward(self, sums: KeyedTensor, bags: KeyedJaggedTensor, dense: Tensor) -> Tensor:
        if isinstance(sums, RowsWithRoom) and not self._means and tuple(sums.keys()) == self._layout.sparse:
            return sums.beside(dense)
        parts = pooled_by_feature(sums, bags, self._means)
        return torch.cat(self._layout.in_order(parts, dense), dim=1)


class Ranker(nn.Module):
    """Batch -> (loss [], Outputs). Each submodule is one step for the pipeline that traces this one."""

    def __init__(
        self,
        tables: EmbeddingBagCollection | None,
        config: Config,
        top: nn.Module,
        objective: nn.Module,
        check: BatchCheck | None = None,
    ) -> None:
        """check: of batches that are left out; None where none is."""
        super().__init__()
        self.tables = tables
        self.join = JoinInputs(config)
        self.top = top
        self.objective = objective
        named = all(hasattr(self, name) for name in (TABLES, TOP, OBJECTIVE))  # no module where there are no tables
        assert named, "checkpoints name their tensors after these attributes"
        self.shield = None if check is None else Shield(check)
        self._row_keys = share_row_keys(top)

    def forward(self, batch: Batch) -> tuple[Tensor, Outputs]:
        self._row_keys.tensor = batch.row_keys
        inputs = batch.dense if self.tables is None else self.join(self.tables(batch.sparse), batch.sparse, batch.dense)
        if self.shield is not None:
            inputs = self.shield(inputs)
        return self.objective(self.top(inputs), batch.labels, batch.label_weights)
