"""Raw columns to IDs and numbers, the same in training and in serving. Needs no torchrec.

Read `feature_transforms` first, then the ID transforms in `transforms/`; `arrow` and `xxh64` are what they stand on.
"""

from embeddings.features.feature_transforms import FeatureTransforms as FeatureTransforms
