"""One user, many candidates: what all rows of a call have in common is transformed, looked up and summed once.

Which columns are shared is the caller's choice. Features that read shared columns alone have one bag per call, all
others one per row, and the program for such calls takes for every group of tables:

    values [N], lengths [U], and weights [N] if weighted     all bags, feature by feature
    places [B, F]                                            which bag is whose

then dense [B, D]. B rows, C calls, F features of the group, U bags, N IDs of all of them. `inputs` checks the bags.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from configs.layout import Span
from configs.schema import Feature, SparseFeature, TableConfig
from embeddings.features.arrow import ones
from embeddings.features.bags import Bags
from embeddings.features.feature_transforms import Columns, FeatureTransforms
from trainer.serving.inputs import flat_bags
from trainer.serving.signature import Group


class Halves:
    """The features of a bundle in two, by the raw columns that calls share.

    Attributes:
        once: transforms of the features that read shared columns alone.
        each: those of all others.
    """

    def __init__(
        self,
        features: Mapping[str, Feature],
        tables: Mapping[str, TableConfig],
        groups: Sequence[Group],
        dense_spans: Mapping[str, Span],
        shared: frozenset[str],
    ) -> None:
        once = {name: feature for name, feature in features.items() if _reads(name, feature) <= shared}
        each = {name: feature for name, feature in features.items() if name not in once}
        self.once, self.each = FeatureTransforms(once, tables), FeatureTransforms(each, tables)
        self._groups = groups
        self._dense_spans, self._dense_width = dense_spans, max((end for _, end in dense_spans.values()), default=0)

    def inputs(self, once: Columns, each: Columns, call_of_row: npt.NDArray[np.int64]) -> list[Tensor]:
        """The program's inputs.

        Args:
            once: transformed rows, one per call, of `self.once`.
            each: B rows of `self.each`.
            call_of_row: [B].

        Raises:
            ValueError: as `program_inputs`.
        """
        inputs: list[npt.NDArray] = []
        for group in self._groups:
            inputs += _group(group, once, each, call_of_row)
        if self._dense_width:
            inputs.append(self._dense(once, each, call_of_row))
        return [torch.from_numpy(array) for array in inputs]

    def repeated(self, once: Columns, each: Columns, call_of_row: npt.NDArray[np.int64]) -> Columns:
        """The same as B whole rows, for a program that takes those."""
        sparse = {name: _repeated(bags, call_of_row) for name, bags in once.sparse.items()} | each.sparse
        return Columns(sparse, self._dense(once, each, call_of_row))

    def _dense(self, once: Columns, each: Columns, call_of_row: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        dense = np.empty((len(call_of_row), self._dense_width), np.float32)
        for transforms, part, rows in ((self.once, once.dense, call_of_row), (self.each, each.dense, slice(None))):
            for name, (first, last) in transforms.dense_spans.items():
                dense[:, slice(*self._dense_spans[name])] = part[rows, first:last]
        return dense


def _reads(name: str, feature: Feature) -> set[str]:
    weights = feature.weights if isinstance(feature, SparseFeature) else None
    return {feature.column or name} | ({weights} if weights else set())


def _group(group: Group, once: Columns, each: Columns, call_of_row: npt.NDArray[np.int64]) -> list[npt.NDArray]:
    """Inputs of one group."""
    row = np.arange(len(call_of_row))
    parts = [(each, row) if name in each.sparse else (once, call_of_row) for name in group.features]
    bags = [part.sparse[name] for name, (part, _) in zip(group.features, parts, strict=True)]
    sizes = [len(part.dense) for part, _ in parts]
    places, first = np.empty((len(row), len(bags)), np.int64), 0
    for feature, (_, bag_of_row) in enumerate(parts):
        np.add(bag_of_row, first, out=places[:, feature])
        first += sizes[feature]
    return [*flat_bags(group, bags, sizes), places]


def _repeated(bags: Bags, call_of_row: npt.NDArray[np.int64]) -> Bags:
    """The bag of its call for each row."""
    if bags.is_scalar:
        weights = None if bags.weights is None else bags.weights[call_of_row]
        return Bags(bags.values[call_of_row], ones(len(call_of_row)), weights)
    lengths = bags.lengths[call_of_row]
    starts = (np.cumsum(bags.lengths) - bags.lengths)[call_of_row]
    ids = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return Bags(bags.values[ids], lengths, None if bags.weights is None else bags.weights[ids])
