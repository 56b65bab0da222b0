"""The layout of the top's input x [B, D]: which of its columns each feature fills. Said here, and nowhere else.

First the sparse features, each the pooled rows of its table, then the dense ones; both in the order of the config.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TypeVar

from configs.feature_config import Feature, SparseFeature, TableConfig

Span = tuple[int, int]
Block = TypeVar("Block")
Dense = TypeVar("Dense")


@dataclass(frozen=True)
class InputLayout:
    """`spans`: feature -> columns [start, end). `sparse`: the features among them that are looked up in a table."""

    spans: Mapping[str, Span]
    sparse: tuple[str, ...]

    @property
    def width(self) -> int:
        """D."""
        return max((end for _, end in self.spans.values()), default=0)

    @property
    def dense(self) -> Span:
        """The columns of all dense features together; empty where there is none."""
        return max((self.spans[name][1] for name in self.sparse), default=0), self.width

    @property
    def dense_width(self) -> int:
        """Number of columns of all dense features together."""
        return self.dense[1] - self.dense[0]

    @cached_property
    def dense_spans(self) -> Mapping[str, Span]:
        """Dense feature -> its columns [start, end) of a matrix [B, dense_width] of the dense features alone."""
        first = self.dense[0]
        return {name: (s - first, e - first) for name, (s, e) in self.spans.items() if name not in self.sparse}

    def in_order(self, pooled: Mapping[str, Block], dense: Dense) -> list[Block | Dense]:
        """The blocks of x from left to right: one for each sparse feature, by name, and all dense features in one."""
        return [*(pooled[name] for name in self.sparse), dense]


def layout_of(features: Mapping[str, Feature], tables: Mapping[str, TableConfig]) -> InputLayout:
    """The layout of these features, looked up in these tables."""
    sparse = {name: tables[f.table].embedding_dim for name, f in features.items() if isinstance(f, SparseFeature)}
    return lay_out(sparse, {name: f.width for name, f in features.items() if not isinstance(f, SparseFeature)})


def lay_out(sparse: Mapping[str, int], dense: Mapping[str, int]) -> InputLayout:
    """The layout of features of these widths."""
    widths = {**sparse, **dense}
    ends = accumulate(widths.values())
    spans = {name: (end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}
    return InputLayout(spans, tuple(sparse))
