"""The layout of the top's input x [B, D]: which of its columns each feature fills. Said here, and nowhere else.

First the sparse features, each the pooled rows of its table, then the dense ones; both in the order of the config.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

Span = tuple[int, int]


@dataclass(frozen=True)
class InputLayout:
    """`spans`: feature -> columns [start, end). `sparse`: the features among them that are looked up in a table."""

    spans: Mapping[str, Span]
    sparse: tuple[str, ...]

    @property
    def width(self) -> int:
        """D."""
        return max(end for _, end in self.spans.values())

    @property
    def dense(self) -> Span:
        """The columns of all dense features together; empty where there is none."""
        return max((self.spans[name][1] for name in self.sparse), default=0), self.width


def lay_out(sparse: Mapping[str, int], dense: Mapping[str, int]) -> InputLayout:
    """The layout of features of these widths."""
    widths = {**sparse, **dense}
    ends = accumulate(widths.values())
    spans = {name: (end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}
    return InputLayout(spans, tuple(sparse))
