"""The sections `features` and `tables`: from columns to IDs and numbers, from IDs to vectors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from configs.section import PositiveFloat, PositiveInt, RowCount, Section


class SparseFeature(Section):
    """A column of IDs, single or lists, that is looked up in a table."""

    table: str = Field(description="Name of the table; several features may share one.")
    column: str | None = Field(default=None, description="Parquet column; the feature's name when left out.")
    transform: str = Field(
        default="hash", description="A module of embeddings/features/transforms: hash, identity, vocabulary, bucketize."
    )
    weights: str | None = Field(default=None, description="List column of the same lengths with a weight for every ID.")
    max_length: PositiveInt | None = Field(default=None, description="Longer lists are cut to their last IDs.")
    out_of_range: Literal["error", "drop"] = Field(default="error", description="identity: an ID outside the table.")
    vocabulary: str | None = Field(
        default=None, description="vocabulary: text file, one ID a line; others share row 0."
    )
    boundaries: tuple[float, ...] = Field(default=(), description="bucketize: increasing upper edges of the buckets.")
    options: dict[str, Any] = Field(default={}, description="Arguments of a transform of your own.")


class DenseFeature(Section):
    """A numeric column, or a list column of fixed width, that enters the model as numbers."""

    column: str | None = Field(default=None, description="Parquet column; the feature's name when left out.")
    transform: Literal["none", "log1p", "standardize"] = Field(
        default="none", description="log1p: sign(x)*log(1+|x|); standardize: (x - mean) / std."
    )
    width: PositiveInt = Field(default=1, description="1 for a scalar column; the length of every list otherwise.")
    default: float = Field(default=0.0, description="Value of a null, before the transform.")
    mean: float = Field(default=0.0, description="standardize: subtracted.")
    std: PositiveFloat = Field(default=1.0, description="standardize: divided by.")


def _feature_kind(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "sparse" if isinstance(value, SparseFeature) else "dense"
    return "sparse" if isinstance(value, dict) and "table" in value else "dense"


Feature = Annotated[
    Annotated[SparseFeature, Tag("sparse")] | Annotated[DenseFeature, Tag("dense")], Discriminator(_feature_kind)
]


class TableConfig(Section):
    """An embedding table. The defaults suit IDs of high cardinality."""

    num_embeddings: RowCount = Field(description="Rows of the table.")
    embedding_dim: PositiveInt = Field(description="Width of a row; a multiple of 4.", multiple_of=4)
    pooling: Literal["sum", "mean"] = Field(default="sum", description="How the rows of an ID list become one.")
    data_type: Literal["fp32", "fp16"] = Field(default="fp32", description="fp16 halves the memory of the weights.")
    sharding: Literal["auto", "row_wise", "table_wise", "column_wise", "table_row_wise", "data_parallel"] = Field(
        default="auto", description="auto lets the planner choose among row_wise and table_wise, which reshard exactly."
    )
    init_scale: PositiveFloat | None = Field(
        default=None, description="Rows start uniform in [-s, s]; left out, s = 1/sqrt(num_embeddings)."
    )
