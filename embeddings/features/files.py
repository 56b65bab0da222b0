"""The files that ID transforms read: where a config, a run and a bundle have theirs. One per feature at most."""

from collections.abc import Mapping

from configs.schema import Feature, SparseFeature


def files_of(features: Mapping[str, Feature]) -> dict[str, str]:
    """Feature -> path of the file that its transform reads, for those that read one."""
    sparse = {name: feature for name, feature in features.items() if isinstance(feature, SparseFeature)}
    return {name: feature.vocabulary for name, feature in sparse.items() if feature.vocabulary is not None}


def with_files(features: Mapping[str, Feature], paths: Mapping[str, str]) -> dict[str, Feature]:
    """The features, those of `paths` with their file there."""
    return {
        name: feature.model_copy(update={"vocabulary": paths[name]}) if name in paths else feature
        for name, feature in features.items()
    }
