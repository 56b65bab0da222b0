"""What the driver does before workers start: checks the data, makes the run directory ready, generates data.

Mistakes of config and data come up here, before a cluster is started. Imports no torch.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from configs.errors import UserError
from configs.load import dump_config, load_config
from configs.resume import compare
from configs.schema import Config, Feature
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.checkpoint.files import find
from trainer.data.columns.checks import check_manifest
from trainer.data.columns.ranges import Ranges
from trainer.data.columns.reweighting import settle, without
from trainer.data.dataset.follow import complete_partitions
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import build_manifest, exists
from trainer.data.generators._generate import generate
from trainer.run.environment import environment
from trainer.run.folder import Folder
from trainer.run.manifests import keep_manifest, read_manifest
from trainer.run.run_directory import RunDirectory, write_json
from trainer.run.vocabularies import changed_vocabularies, features_of, keep_vocabularies

Say = Callable[[str], None]


def prepare_run(config: Config, *, resume: bool, overwrite: bool, say: Say) -> Config:
    """Everything that the workers of a run find in its directory, and generated data if the config asks for it.

    Paths of `config` are absolute. Returns the config with what only the data could say.
    """
    generate_missing(config, say)
    run = RunDirectory(config.training.run_dir)
    features = config.features if overwrite else features_of(run, config)
    manifests = _manifests(run, config, features, keep=not overwrite, say=say)  # before an old run is deleted
    former = load_config(run.config).tasks if resume and run.is_used else {}
    config = config.model_copy(update={"tasks": settle(config.tasks, manifests[config.data.train], former)})
    _open(run, config, resume=resume, overwrite=overwrite, say=say)
    keep_vocabularies(run, config)
    for part, manifest in manifests.items():
        keep_manifest(run, part, manifest)
    return config


def check_data(config: Config, say: Say) -> None:
    """Checks what `prepare_run` would; data that is still to be generated is not there to check."""
    if config.data.generate is None or Path(config.data.root).exists():
        _check(config, config.features, config.data.train, say)


def keep_part(run: RunDirectory, config: Config, part: str, say: Say) -> None:
    """Makes sure that the run has a manifest of `part`."""
    if read_manifest(run, part) is None:
        keep_manifest(run, part, _check(config, features_of(run, config), part, say))


def generate_data(config: Config, say: Say) -> None:
    """Writes the synthetic data of data.generate to data.root, an absolute path.

    Raises:
        UserError: the config does not say what to generate.
    """
    data = config.data
    if data.generate is None:
        raise UserError("the config has no data.generate\nadd it: configs/quickstart.yaml shows one")
    say(f"generating {data.generate.kind} data: {data.generate.train_rows:,} rows in {data.root}")
    generate(data.generate, data.root, data.train, data.validation)


def generate_missing(config: Config, say: Say) -> None:
    """Writes the synthetic data that a config asks for, if it is not there."""
    if config.data.generate is not None and not Path(config.data.root).exists():
        generate_data(config, say)


def _open(run: RunDirectory, config: Config, *, resume: bool, overwrite: bool, say: Say) -> None:
    """Makes the run directory ready, new or resumed.

    Raises:
        UserError: it is used, or the config changed in a way that its checkpoints do not allow.
    """
    former = run.create(dump_config(config), resume=resume, overwrite=overwrite)
    if former is not None:
        changes = compare(load_config(run.config), config)
        changes.refuse_impossible(mid_epoch=_is_mid_epoch(run))
        for line in [*changes.lines(), *changed_vocabularies(run, load_config(run.config), config)]:
            say(f"changed on resume: {line}")
        run.write_config(dump_config(config))
    write_json(run.environment, environment())


def _is_mid_epoch(run: RunDirectory) -> bool:
    complete, _ = find(Folder(run.checkpoints))
    return bool(complete) and complete[0].position.epoch_step > 0


def _manifests(
    run: RunDirectory, config: Config, features: Mapping[str, Feature], *, keep: bool, say: Say
) -> dict[str, Manifest]:
    """The files of each part, fixed at the first start of a run: files that arrive later change nothing.

    keep: those that the run has already.
    """
    manifests: dict[str, Manifest] = {}
    for part in (config.data.train, config.data.validation):
        known = read_manifest(run, part) if keep else None
        if known is None and (part == config.data.train or exists(config.data.root, part)):
            known = _check(config, features, part, say)
        if known is not None:
            manifests[part] = known
    return manifests


def _check(config: Config, own: Mapping[str, Feature], part: str, say: Say) -> Manifest:
    features = FeatureTransforms(own, config.tables)
    data = config.data
    find_files = complete_partitions if data.follow and part == data.train else build_manifest
    tasks = config.tasks if part == data.train else without(config.tasks)
    look = Ranges(tasks, data.weight_column)
    manifest = find_files(data.root, part, timeout_s=data.read_timeout_s, look=look, say=say)
    check_manifest(manifest, features, config.model_copy(update={"tasks": tasks}))
    return manifest
