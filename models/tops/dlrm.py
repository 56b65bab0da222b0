"""DLRM: a bottom MLP over the dense inputs, the interaction of its output with the tables' vectors, a top MLP.

Naumov et al. 2019, "Deep Learning Recommendation Model for Personalization and Recommendation Systems"; `cross` is the
low-rank cross network of DCNv2 (Wang et al. 2021), as MLPerf trains it.

In plain words, e[0] ... e[F - 1] the vectors:

    z = bottom(dense)
    v = stack([z, *e]);  pairs = [v[i] @ v[j] for i in range(F + 1) for j in range(i)]       # dot
    x0 = x = cat([z, *e]);  for U, V in layers: x = x0 * (U(V(x))) + x                       # cross
    logits = towers(top(cat([z, *pairs]) or x))

`model.tower_layers: []` makes the towers one output for each task, as published.

Shapes: B batch, F sparse features, D width of a vector, T tasks.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from configs.choice_settings import ChoiceSettings
from configs.layout import InputLayout
from configs.schema import Config, ModelConfig, TaskConfig
from configs.section import Layers, PositiveInt
from models.batched.parallel import activation
from models.fork import CopyFork
from models.towers import Towers


class Settings(ChoiceSettings):
    bottom_layers: Layers = Field(
        default=(64, 16), min_length=1, description="Widths over the dense inputs; dot needs the tables' width last."
    )
    interaction: Literal["dot", "cross", "none"] = Field(
        default="dot",
        description="dot: inner products of all pairs, cheap; cross: layers of DCNv2, which learn more and cost "
        "most of a step; none: the vectors side by side.",
    )
    cross_layers: PositiveInt = Field(default=3, description="cross: layers; each raises the degree by one.")
    cross_rank: PositiveInt = Field(default=512, description="cross: rank of a layer; half of it costs half.")
    top_layers: Layers = Field(default=(64, 32), min_length=1, description="Widths after the interaction.")

    def mistakes(self, config: Config, name: str) -> Iterator[tuple[str, str]]:
        if not config.dense_features:
            yield "bottom_layers", "dlrm needs dense features, and there are none; use another top"
        widths = {table.embedding_dim for table in config.tables.values()}
        if self.interaction == "dot" and widths - {self.bottom_layers[-1]}:
            odd = next(t for t, table in config.tables.items() if table.embedding_dim != self.bottom_layers[-1])
            message = f"dot needs vectors of one width, but table {odd} has {config.tables[odd].embedding_dim}"
            yield "bottom_layers", f"{message}, and the bottom ends with {self.bottom_layers[-1]}"


class DLRM(nn.Module):
    """x [B, all inputs] -> (logits [B, T], no gates)."""

    def __init__(
        self, settings: Settings, model: ModelConfig, tasks: Mapping[str, TaskConfig], inputs: InputLayout
    ) -> None:
        super().__init__()
        self.interaction, self.start = settings.interaction, inputs.dense[0]
        self.count = len(inputs.sparse) + 1
        self.pairs = self.count * (self.count - 1) // 2
        self.bottom = _mlp(inputs.width - self.start, settings.bottom_layers, model)
        joined = self.start + settings.bottom_layers[-1]
        self.cross = nn.ModuleList()
        if self.interaction == "cross":
            self.cross.extend(Cross(joined, settings.cross_rank) for _ in range(settings.cross_layers))
        width = settings.bottom_layers[-1] + self.pairs if self.interaction == "dot" else joined
        self.top = _mlp(width, settings.top_layers, model)
        self.copies = CopyFork(len(tasks))
        self.towers = Towers(model, tasks, settings.top_layers[-1])

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.bottom(x[:, self.start :])
        joined = torch.cat([z, x[:, : self.start]], dim=1)
        if self.interaction == "dot":
            vectors = joined.unflatten(1, (self.count, -1))  # [B, F + 1, D]
            products = torch.bmm(vectors, vectors.mT)
            joined = torch.cat([z, *below_diagonal(products)], dim=1)
        x0 = joined
        for layer in self.cross:
            joined = x0 * layer(joined) + joined
        return self.towers(self.copies(self.top(joined).t())), {}


def below_diagonal(products: Tensor) -> list[Tensor]:
    """[B, F, F] -> what stands below the diagonal, row by row, as parts [B, ...] side by side.

    By index in one piece, which is differentiated faster, and ONNX Runtime prefers it; a compiled program copies
    slices several times as fast.
    """
    count = products.shape[1]
    if torch.compiler.is_exporting() and not torch.onnx.is_in_onnx_export():
        return [products[:, row, :row] for row in range(1, count)]
    rows, columns = torch.tril_indices(count, count, -1, device=products.device)
    return [products[:, rows, columns]]


class Cross(nn.Sequential):
    """U(V(x)) + b of a low-rank cross layer [B, width]."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))


def _mlp(width: int, layers: Layers, model: ModelConfig) -> nn.Sequential:
    modules: list[nn.Module] = []
    for before, after in zip((width, *layers), layers, strict=False):
        modules += [nn.Linear(before, after), activation(model.activation)]
    return nn.Sequential(*modules)


def build(settings: Settings, model: ModelConfig, tasks: Mapping[str, TaskConfig], inputs: InputLayout) -> DLRM:
    return DLRM(settings, model, tasks, inputs)
