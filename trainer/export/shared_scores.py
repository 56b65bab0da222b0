"""Scores the sample's rows as whole rows, and as calls with columns in common: a bundle has a program for each.

That both are equal, and the former as the trainer's, is checked by `parity`.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from configs.layout import Span
from embeddings.features.feature_transforms import Columns, FeatureTransforms
from trainer.export.sample import SampleRows
from trainer.serving.bundle import Bundle

_CALLS, _MOST_ROWS = 3, 512


def shared_scores(
    bundle: Bundle, sample: SampleRows
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Predictions [B, T] of both programs for the same rows, with every second raw column shared, then the others."""
    names = sorted({feature.column or name for name, feature in bundle.features.items()})
    for shared in (frozenset(names[::2]), frozenset(names[1::2])):
        halves = bundle.halves(shared)
        for columns in (sample.generated, *([] if sample.columns is None else [sample.columns])):
            columns = columns.narrow(0, min(_MOST_ROWS, len(columns.dense)))
            rows, spans = len(columns.dense), bundle.transforms.dense_spans
            once = _of(halves.once, columns.narrow(0, min(_CALLS, rows)), spans)
            each = _of(halves.each, columns, spans)
            call_of_row = np.arange(rows) * len(once.dense) // rows
            whole = bundle.score(halves.repeated(once, each, call_of_row))
            yield whole, bundle.score_shared(halves, once, each, call_of_row)


def _of(transforms: FeatureTransforms, columns: Columns, spans: Mapping[str, Span]) -> Columns:
    """Some features of transformed rows, as `transforms` gives them."""
    dense = np.empty((len(columns.dense), transforms.dense_width), np.float32)
    for name, (first, last) in transforms.dense_spans.items():
        dense[:, first:last] = columns.dense[:, slice(*spans[name])]
    return Columns({name: columns.sparse[name] for name in transforms.sparse_names}, dense)
