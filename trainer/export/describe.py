"""What signature.json says of a run: its input columns, its source, shares of its data, and the bundle's identity."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from configs.schema import Config, Feature
from embeddings.features.feature_transforms import FeatureTransforms
from embeddings.features.files import files_of
from trainer.checkpoint.files import Checkpoint
from trainer.export.choose import evaluated_at
from trainer.export.sample import SampleRows
from trainer.export.weights import Stored
from trainer.file_record import checksum
from trainer.run.manifests import read_manifest
from trainer.run.run_directory import RunDirectory
from trainer.serving.columns import widest
from trainer.serving.shares import Shares, shares_by_feature
from trainer.serving.signature import GRAPH, Group, Source


def input_schema(run: RunDirectory, config: Config) -> pa.Schema | None:
    """The columns that features read, each of the widest type that a training file has; None without a manifest."""
    manifest = read_manifest(run, config.data.train)
    if manifest is None or not manifest.schemas:
        return None
    names = FeatureTransforms(config.features, config.tables).columns
    return pa.schema([(name, widest([schema.field(name).type for schema in manifest.schemas])) for name in names])


def source_of(run: RunDirectory, config: Config, checkpoint: Checkpoint) -> Source:
    """The run and the checkpoint that a bundle is made from."""
    facts = json.dumps(checkpoint.facts, sort_keys=True)
    return Source(
        run=str(run),
        run_digest=checksum(facts.encode()),
        data=config.data.root,
        step=checkpoint.position.step,
        epoch=checkpoint.position.epoch,
        metrics=evaluated_at(run, checkpoint.position.step),
        facts=checkpoint.facts,
    )


def data_shares(config: Config, sample: SampleRows) -> dict[str, Shares]:
    """Of each feature in the rows of the data that were scored; none where the data could not be read."""
    if sample.data is None or sample.columns is None:
        return {}
    return shares_by_feature(config.features, sample.data, sample.columns)


def identity_of(folder: Path, features: Mapping[str, Feature], groups: Sequence[Group], stored: Stored) -> str:
    """Of what rows of tables mean and what is done with them, and not of their values."""
    vocabularies = {path: checksum((folder / path).read_bytes()) for path in files_of(features).values()}
    parts = {
        "features": {name: feature.model_dump(mode="json") for name, feature in features.items()},
        "vocabularies": vocabularies,
        "program": checksum((folder / GRAPH).read_bytes()),
        "groups": [group.model_dump(mode="json") for group in groups],
        "weights": [weight.model_dump(mode="json") for weight in stored.weights],
    }
    return checksum(json.dumps(parts, sort_keys=True).encode())
