"""Raw columns to IDs and numbers, the same in training and in serving. Needs no torchrec.

Read `feature_transforms` first, then the ID transforms in `transforms/`; `arrow` and `xxh64` are what they stand on.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embeddings.features.feature_transforms import FeatureTransforms as FeatureTransforms


def __getattr__(name: str) -> Any:
    """`FeatureTransforms`, imported when it is asked for: a check of a config finds the transforms without NumPy."""
    if name != "FeatureTransforms":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from embeddings.features.feature_transforms import FeatureTransforms

    return FeatureTransforms
