"""What the driver does before workers start: checks the data, makes the run directory ready, generates data.

Mistakes of config and data come up here, before a cluster is started. Imports no torch.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from configs.errors import UserError
from configs.load import dump_config, load_config
from configs.resume import compare
from configs.schema import Config
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.checkpoint.files import find
from trainer.data.columns.checks import check_manifest, check_part, check_parts
from trainer.data.columns.reweighting import settle
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import build_manifest
from trainer.data.generators._generate import generate
from trainer.run.environment import environment
from trainer.run.folder import Folder
from trainer.run.manifests import keep_manifest, read_manifest
from trainer.run.run_directory import RunDirectory, write_json
from trainer.run.vocabularies import changed_vocabularies, features_of, keep_vocabularies

Say = Callable[[str], None]
_FEW_ROWS = 1000


def prepare_run(config: Config, *, resume: bool, overwrite: bool, say: Say) -> Config:
    """Everything that the workers of a run find in its directory, and generated data if the config asks for it.

    Paths of `config` are absolute. Returns the config with what only the data could say.
    """
    generate_missing(config, say)
    run = RunDirectory(config.training.run_dir)
    features = FeatureTransforms(config.features if overwrite else features_of(run, config), config.tables)
    known = {} if overwrite else _manifests(run, config)
    manifests = check_parts(config, features, known, say)  # before an old run is deleted
    former = load_config(run.config).tasks if resume and run.is_used else {}
    config = config.model_copy(update={"tasks": settle(config.tasks, manifests[config.data.train], former)})
    _open(run, config, resume=resume, overwrite=overwrite, say=say)
    keep_vocabularies(run, config)
    for part, manifest in manifests.items():
        keep_manifest(run, part, manifest)
    return config


def check_data(config: Config, say: Say) -> None:
    """Checks what `prepare_run` would; of data that is still to be generated, whether it could be used."""
    features = FeatureTransforms(config.features, config.tables)
    if config.data.generate is None or Path(config.data.root).exists():
        manifests = check_parts(config, features, {}, say)
        settle(config.tasks, manifests[config.data.train], {})
    else:
        _check_generated(config, features)


def _check_generated(config: Config, features: FeatureTransforms) -> None:
    """Generates a few rows and checks whether their columns can be used."""
    made = config.data.generate
    assert made is not None, "asked for"
    few = made.model_copy(update={"train_rows": min(made.train_rows, _FEW_ROWS), "validation_rows": 0})
    with TemporaryDirectory() as folder:
        root = str(Path(folder) / "data")
        try:
            generate(few, root, config.data.train, config.data.validation)
            check_manifest(build_manifest(root, config.data.train), features, config)
        except UserError as error:
            raise UserError(str(error).replace(root, config.data.root)) from None


def keep_part(run: RunDirectory, config: Config, part: str, say: Say) -> None:
    """Makes sure that the run has a manifest of `part`."""
    if read_manifest(run, part) is None:
        features = FeatureTransforms(features_of(run, config), config.tables)
        keep_manifest(run, part, check_part(config, features, part, read_manifest(run, config.data.train), say))


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


def _manifests(run: RunDirectory, config: Config) -> dict[str, Manifest]:
    """The files of each part, fixed at the first start of a run: files that arrive later change nothing."""
    found = {part: read_manifest(run, part) for part in (config.data.train, config.data.validation)}
    return {part: manifest for part, manifest in found.items() if manifest is not None}
