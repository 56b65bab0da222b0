"""The whole model: tables, top and objective as one module that a train pipeline can drive.

Tables are `embeddings`' business, the top and its losses `models`'; here they only meet. One row goes: IDs -> pooled
rows of the tables, beside the dense columns -> top -> logits -> predictions and losses.

B batch, T tasks, D width of everything that enters the top.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from configs.schema import Config
from trainer.data.batch import Batch


class Outputs(NamedTuple):
    """What a step leaves for metrics and telemetry, detached."""

    loss: Tensor  # []: what this rank minimizes
    task_losses: Tensor  # [T]: sums over this rank's rows
    predictions: Tensor  # [B, T]
    labels: Tensor  # [B, T]
    weights: Tensor  # [B, T]
    gates: dict[str, Tensor]  # level -> [B, gates, experts]


class Ranker(nn.Module):
    """Batch -> (loss [], Outputs). What is inside `top` and `objective` is one step for the pipeline that traces it."""

    def __init__(self, tables: EmbeddingBagCollection | None, top: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        self.top = top
        self.objective = objective

    def forward(self, batch: Batch) -> tuple[Tensor, Outputs]:
        if self.tables is None:
            inputs = batch.dense
        else:
            inputs = torch.cat((self.tables(batch.sparse).values(), batch.dense), dim=1)
        return self.objective(self.top(inputs), batch.labels, batch.label_weights)


def input_width(config: Config) -> int:
    """D: widths of all sparse features' tables and of all dense features."""
    sparse = sum(config.tables[feature.table].embedding_dim for feature in config.sparse_features.values())
    return sparse + sum(feature.width for feature in config.dense_features.values())
