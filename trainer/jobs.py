"""What the driver does for a command: prepare the run directory, launch workers, give back what they found.

Mistakes of config and data come up here, before a cluster is started. The workers' side is `train` and `measure`,
imported on the workers alone: they need torchrec, which takes ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.checks import check
from configs.errors import RunFailed, UserError
from configs.load import dump_config, load_config
from configs.resume import compare
from configs.schema import Config
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.checkpoint.files import find
from trainer.compare import Result, comparison, variant, write_dashboard
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
from trainer.run.run_directory import RunDirectory, open_run, write_json
from trainer.run.versions import check_versions

if TYPE_CHECKING:
    from cluster.launch import Worker

Say = Callable[[str], None]


def train_run(config: Config, *, resume: bool, overwrite: bool, say: Say) -> dict[str, Any]:
    """The `train` command; returns what rank 0's `train` returned."""
    check_versions()
    config = with_absolute_paths(config)
    run = RunDirectory(config.training.run_dir)
    with run.lock():
        config = prepare_run(config, resume=resume, overwrite=overwrite, say=say)
        result = _launch(_train, config, config, run.path, "logs/latest", say)
    if result["stopped"]:
        raise RunFailed(f"stopped at step {result['step']:,}, which is saved\n--resume goes on from there")
    say(f"done: {run}")
    return result


def prepare_run(config: Config, *, resume: bool, overwrite: bool, say: Say) -> Config:
    """Everything that the workers of a run find in its directory, and generated data if the config asks for it.

    Returns the config with what only the data could say.
    """
    generate_missing(config, say)
    run = RunDirectory(config.training.run_dir)
    manifests = _manifests(run, config, keep=not overwrite)  # before anything of an old run is deleted
    former = load_config(run.config).tasks if resume and run.is_used else {}
    config = config.model_copy(update={"tasks": settle(config.tasks, manifests[config.data.train], former)})
    _open(run, config, resume=resume, overwrite=overwrite, say=say)
    for part, manifest in manifests.items():
        keep_manifest(run, part, manifest)
    return config


def compare_runs(config: Config, tops: list[str], seeds: int, part: str | None, say: Say) -> tuple[str, dict[str, Any]]:
    """The `compare` command: every top with every seed, each a run of its own below training.run_dir, one table."""
    check_versions()
    config = with_absolute_paths(config)
    part = part or config.data.validation
    variants = [variant(config, top, config.training.seed + seed) for top in tops for seed in range(seeds)]
    mistakes = [f"model.top={each.model.top}: {mistake.message}" for each in variants for mistake in check(each)]
    if mistakes:
        raise UserError("\n".join(dict.fromkeys(mistakes)))
    with ExitStack() as locks:
        for run_dir in (config.training.run_dir, *(each.training.run_dir for each in variants)):
            locks.enter_context(RunDirectory(run_dir).lock())
        for place, each in enumerate(variants):
            run = RunDirectory(each.training.run_dir)
            variants[place] = prepare_run(each, resume=run.is_used, overwrite=False, say=say)
            _measured_on(run, each, part)
        folder = Path(config.training.run_dir)
        tasks = _launch(_train_all, (variants, part), config, folder, "*/logs/latest", say)
        if len(tasks) < len(variants):
            raise RunFailed(f"stopped in run {len(tasks) + 1} of {len(variants)}\nthe same command goes on from there")
        results = [Result(each, values) for each, values in zip(variants, tasks, strict=True)]
        write_dashboard(results, folder / "tensorboard")
    text, values = comparison(results, part)
    return f"{text}\nside by side: tensorboard --logdir {folder / 'tensorboard'} (the HPARAMS tab)", values


def check_run(config: Config) -> str:
    """The `--dry-run` of train: versions, config and data; returns the resolved config as YAML."""
    check_versions()
    config = with_absolute_paths(config)
    if config.data.generate is None or Path(config.data.root).exists():
        _check(config, config.data.train)
    return dump_config(config)


def evaluate_run(run_dir: Path, *, part: str | None, workers: int | None, say: Say) -> tuple[str, dict[str, Any]]:
    """The `evaluate` command: a table and its values."""
    check_versions()
    run = open_run(run_dir)
    config = load_config(run.config)
    training = config.training.model_copy(update={"run_dir": str(run)})  # it may have moved
    config = config.model_copy(update={"training": training})
    if workers is not None:
        config = config.model_copy(update={"launch": config.launch.model_copy(update={"workers": workers})})
    part = part or config.data.validation
    _measured_on(run, config, part)
    result = _launch(_measure, (config, part), config, run.path, "logs/evaluate", say)
    return result["text"], {"tasks": result["tasks"]}


def generate_data(config: Config, say: Say) -> None:
    """The `generate` command.

    Raises:
        UserError: the config does not say what to generate.
    """
    data = with_absolute_paths(config).data
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
        for line in changes.lines():
            say(f"changed on resume: {line}")
        run.write_config(dump_config(config))
    write_json(run.environment, environment())


def _is_mid_epoch(run: RunDirectory) -> bool:
    complete, _ = find(Folder(run.checkpoints))
    return bool(complete) and complete[0].position.epoch_step > 0


def _check(config: Config, part: str) -> Manifest:
    features = FeatureTransforms(config.features, config.tables)
    data = config.data
    find_files = complete_partitions if data.follow and part == data.train else build_manifest
    tasks = config.tasks if part == data.train else without(config.tasks)
    look = Ranges(tasks, data.weight_column)
    manifest = find_files(data.root, part, timeout_s=data.read_timeout_s, look=look)
    check_manifest(manifest, features, config.model_copy(update={"tasks": tasks}))
    return manifest


def _manifests(run: RunDirectory, config: Config, *, keep: bool) -> dict[str, Manifest]:
    """The files of each part, fixed at the first start of a run: files that arrive later change nothing.

    keep: those that the run has already.
    """
    manifests: dict[str, Manifest] = {}
    for part in (config.data.train, config.data.validation):
        known = read_manifest(run, part) if keep else None
        if known is None and (part == config.data.train or exists(config.data.root, part)):
            known = _check(config, part)
        if known is not None:
            manifests[part] = known
    return manifests


def _measured_on(run: RunDirectory, config: Config, part: str) -> None:
    """Makes sure that the run has a manifest of `part`."""
    if read_manifest(run, part) is None:
        keep_manifest(run, part, _check(config, part))


def _launch(
    function: Callable[[Any, Worker], Any], argument: Any, config: Config, folder: Path, logs: str, say: Say
) -> Any:
    """Calls the function on workers. logs: where below `folder` it puts the log of each rank."""
    from cluster.launch import launch

    hint, storage = folder / logs / "rank_{rank}.log", folder / "logs" / "ray"
    return launch(function, argument, config.launch, storage=str(storage), show=say, log_hint=str(hint))


def _train(config: Config, worker: Worker) -> dict[str, Any]:
    from trainer.train import train

    return train(config, worker)


def _train_all(argument: tuple[list[Config], str], worker: Worker) -> list[dict[str, Any]]:
    """One run after the other on the same workers, until told to stop. The metrics of each."""
    from trainer.measure import train_and_measure

    configs, part = argument
    results = []
    for number, config in enumerate(configs, start=1):
        if worker.rank == 0:
            worker.say(f"run {number} of {len(configs)}: {config.training.run_dir}")
        tasks = train_and_measure(config, part, worker)
        if tasks is None:
            break
        results.append(tasks)
    return results


def _measure(argument: tuple[Config, str], worker: Worker) -> dict[str, Any]:
    from trainer.measure import measure

    return measure(*argument, worker)


def with_absolute_paths(config: Config) -> Config:
    """Workers on other machines, or in another folder, must mean the same files."""
    data = config.data.model_copy(update={"root": _absolute(config.data.root)})
    training = config.training.model_copy(update={"run_dir": _absolute(config.training.run_dir)})
    return config.model_copy(update={"data": data, "training": training})


def _absolute(path: str) -> str:
    if "://" in path:
        return path
    expanded = Path(path).expanduser()
    if not expanded.is_absolute() and "working_dir_files" in Path.cwd().parts:
        raise UserError(
            f"{path} is a relative path, and a submitted job runs in a copy of its folder that Ray deletes\n"
            "give data.root and training.run_dir as absolute paths, or from the home folder: ~/..."
        )
    return str(expanded.absolute())
