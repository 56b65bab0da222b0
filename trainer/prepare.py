"""What the driver does before workers start: checks the data, makes the run directory ready, generates data.

Mistakes of config and data come up here, before a cluster is started. Imports no torch.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from configs.errors import UserError
from configs.load import dump_config, load_config
from configs.resume import compare
from configs.schema import Config
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.checkpoint.marks import has_sizes
from trainer.checkpoint.there import newest_by_marks
from trainer.data.columns.checks import check_manifest, check_part, check_parts
from trainer.data.columns.reweighting import fill_from_data
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import build_manifest
from trainer.data.generators._generate import generate
from trainer.data.reading.order import sample_order
from trainer.run.environment import environment
from trainer.run.folder import Folder
from trainer.run.manifests import keep_manifest, read_manifest
from trainer.run.run_directory import RunDirectory, write_json
from trainer.run.vocabularies import changed_vocabularies, features_of, keep_vocabularies
from trainer.schedule import last_step, refuse_endless_warmup
from trainer.telemetry.metrics_file import read_metrics
from trainer.warm_start.source import with_source

Say = Callable[[str], None]
_FEW_ROWS = 1000


def prepare_run(config: Config, *, resume: bool, overwrite: bool, say: Say, same: bool = False) -> Config:
    """Everything that the workers of a run find in its directory, and generated data if the config asks for it.

    Paths of `config` are absolute. Returns the config with what only the data could say.

    same: whether a run that resumes must have the settings that it had, but for those without effect on its result.
    """
    if _is_to_be_generated(config):
        check_run(config, resume=resume, overwrite=overwrite, say=say)
        generate_data(config, say)
    checked = check_run(config, resume=resume, overwrite=overwrite, say=say, same=same)
    config, run = checked.config, RunDirectory(config.training.run_dir)
    if run.create(dump_config(config), resume=resume, overwrite=overwrite) is not None:
        for line in checked.changes:
            say(f"changed on resume: {line}")
        run.write_config(dump_config(config))
    write_json(run.environment, environment())
    keep_vocabularies(run, config)
    for part, manifest in checked.manifests.items():
        keep_manifest(run, part, manifest)
    return config


class Checked(NamedTuple):
    """A run that may start."""

    config: Config
    """With what only the data could say."""
    manifests: dict[str, Manifest]
    changes: list[str]
    """What is no longer as it was, of a run that resumes."""


def check_run(config: Config, *, resume: bool, overwrite: bool, say: Say, same: bool = False) -> Checked:
    """All that can be refused before a run starts: `train` and its `--dry-run` call this one. Touches nothing.

    Of data that is still to be generated it checks whether it could be used.

    Raises:
        UserError: the run directory is taken, the data does not fit, or a run cannot resume with this config.
    """
    run = RunDirectory(config.training.run_dir)
    run.check(resume=resume, overwrite=overwrite)
    former = load_config(run.config) if resume and run.is_used else None
    config = with_source(
        config, former, has_saved=former is not None and newest_by_marks(Folder(run.checkpoints)) is not None
    )
    features = FeatureTransforms(features_of(run, config) if former else config.features, config.tables)
    manifests: dict[str, Manifest] = {}
    if _is_to_be_generated(config):
        _check_generated(config, features)
    else:
        manifests = check_parts(config, features, _manifests(run, config) if former else {}, say)
        if former:
            _refuse_other_files(run, manifests[config.data.train], config)
        refuse_endless_warmup(config, _steps_per_epoch(config, manifests[config.data.train]))
        tasks = fill_from_data(config.tasks, manifests[config.data.train], former.tasks if former else {})
        config = config.model_copy(update={"tasks": tasks})
    return Checked(config, manifests, _changes(run, former, config, same) if former else [])


def ended_at(config: Config) -> int | None:
    """The last step of a run that with this config has nothing left to do; None where it has. No weights are read.

    Where a file of its newest checkpoint is lost or cut, workers are to say so, and to take the one before or refuse.
    """
    run = RunDirectory(config.training.run_dir)
    manifest, newest = read_manifest(run, config.data.train), newest_by_marks(Folder(run.checkpoints))
    if manifest is None or newest is None or newest.links:  # the end is a checkpoint of its own
        return None
    last = last_step(config, newest.position, _steps_per_epoch(config, manifest))
    if last is None or newest.step < last or not has_sizes(newest.base.folder, newest.base.files):
        return None
    if read_manifest(run, config.data.validation) is None:
        return newest.step
    evaluated = [line["step"] for line in read_metrics(run.metrics) if line.get("kind") == "eval"]
    return newest.step if newest.step in evaluated else None


def _steps_per_epoch(config: Config, manifest: Manifest) -> int:
    return sample_order(manifest, config.data, config.training.seed, shuffle=True).steps


def _is_to_be_generated(config: Config) -> bool:
    return config.data.generate is not None and not Path(config.data.root).exists()


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
    if _is_to_be_generated(config):
        generate_data(config, say)


def _changes(run: RunDirectory, former: Config, config: Config, same: bool) -> list[str]:
    """What changed from `former`, a line each.

    Raises:
        UserError: the config changed in a way that the run's checkpoints do not allow, or at all where it must be the
            `same`.
    """
    changes = compare(former, config)
    if same:
        changes.refuse_effects(run.path)
    changes.refuse_impossible(mid_epoch=_is_mid_epoch(run))
    return [*changes.lines(), *changed_vocabularies(run, former, config)]


def _is_mid_epoch(run: RunDirectory) -> bool:
    newest = newest_by_marks(Folder(run.checkpoints))
    return newest is not None and newest.position.epoch_step > 0


def _refuse_other_files(run: RunDirectory, manifest: Manifest, config: Config) -> None:
    """Where manifest.json was lost, the files of today must be those that the run was trained on."""
    newest = newest_by_marks(Folder(run.checkpoints))
    if newest is None or read_manifest(run, config.data.train) is not None:
        return
    if newest.base.facts.get("manifest") != manifest.fingerprint:
        raise UserError(
            f"{run.manifest} has no list of the files of {config.data.train}, and they have changed since the run's "
            "checkpoint\nrestore that file, or start the run again with --overwrite"
        )


def _manifests(run: RunDirectory, config: Config) -> dict[str, Manifest]:
    """The files of each part, fixed at the first start of a run: files that arrive later change nothing."""
    found = {part: read_manifest(run, part) for part in (config.data.train, config.data.validation)}
    return {part: manifest for part, manifest in found.items() if manifest is not None}
