"""From a run directory to a bundle that a server loads: `trainer.serving.signature` says what is in one.

The newest complete checkpoint is read without a process group, so a run of many GPUs is exported on any machine with
the disk for it. The bundle is written beside its place, loaded as a server would, held against the trainer's own
modules, and only then moved there.
"""

import logging
import os
import platform
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from torch import Tensor, nn

from configs.errors import UserError
from configs.load import load_config
from configs.outputs import check_lasts, check_output
from configs.schema import Config, Feature
from embeddings.features.feature_transforms import FeatureTransforms
from embeddings.features.files import files_of, with_files
from models.build import top_of
from models.criterion import Criterion
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.files import Checkpoint
from trainer.data.dataset.schema_text import schema_to_text
from trainer.export import program as export_program
from trainer.export.parity import check_parity, generate_columns
from trainer.export.weights import MappedWeights, table_groups
from trainer.run.manifests import read_manifest
from trainer.run.run_directory import RunDirectory, open_run
from trainer.run.versions import installed
from trainer.run.vocabularies import features_of
from trainer.serving.bundle import Bundle
from trainer.serving.columns import widest
from trainer.serving.inputs import program_inputs
from trainer.serving.program import this_platform
from trainer.serving.signature import COMPILED, PROGRAM, WEIGHTS, Signature, Source, is_bundle, write_signature

log = logging.getLogger(__name__)
_TIMED_ROWS = (1, 512)
_TIMED_CALLS = 30
_COMPILED_GAIN = (20, 2.0)  # of the uncompiled program's time at 1 and at 512 rows; measured on one thread


def export(run_dir: str, out: str | None = None, *, overwrite: bool = False) -> Path:
    """Writes the bundle of a run's newest checkpoint and returns its folder.

    Args:
        run_dir: what `train` wrote.
        out: a folder; RUN/export if left out.
        overwrite: replace a bundle that is there.

    Raises:
        UserError: there is no run or no checkpoint, or `out` is taken by something else, or does not last.
        ParityError: the bundle scores differently from the trainer; nothing is written.
    """
    run = open_run(run_dir)
    config = load_config(run.config)
    config = config.model_copy(update={"features": features_of(run, config)})
    checkpoint = Checkpointer(run.checkpoints, config.checkpoint, {}).newest_complete()
    if checkpoint is None:
        raise UserError(f"{run} has no complete checkpoint\nTrain it first, or give the directory of another run.")
    check_lasts(out or run_dir, "--out" if out else "RUN, or --out,")
    target = Path(out).expanduser().absolute() if out else run.export
    check_output(target, "--out", "folder", is_own=is_bundle, overwrite=overwrite)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    draft.mkdir(parents=True)
    try:
        _write(draft, run, config, checkpoint)
        _move(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _write(folder: Path, run: RunDirectory, config: Config, checkpoint: Checkpoint) -> None:
    groups = table_groups(config)
    mapped = MappedWeights(folder / WEIGHTS, config, groups, checkpoint)
    top = top_of(config).eval()
    _load_top(top, mapped.top, checkpoint)
    refusal = _write_programs(folder, config, top, mapped)
    schema = _input_schema(run, config)
    signature = Signature(
        tasks=tuple(config.tasks),
        features=_copy_vocabularies(config.features, folder),
        tables={name: config.tables[name] for name in mapped.tables},
        columns={} if schema is None else {field.name: str(field.type) for field in schema},
        arrow_schema=None if schema is None else schema_to_text(schema),
        dense_width=config.input_layout.dense_width,
        groups=tuple(groups),
        weights=tuple(mapped.weights),
        compiled_for=None if refusal else this_platform(),
        source=Source(
            run=str(run),
            step=checkpoint.position.step,
            epoch=checkpoint.position.epoch,
            facts=checkpoint.facts,
        ),
        versions=installed() | {"python": platform.python_version()},
    )
    write_signature(folder, signature)
    bundles = {"uncompiled": Bundle(folder, compiled=False, verify=False)}
    bundles |= {} if refusal else {"compiled": Bundle(folder, verify=False)}
    checks = [check_parity(bundle, config, mapped.tables, top) for bundle in bundles.values()]
    parity = max(checks, key=lambda check: check.largest_difference)
    milliseconds = {name: _time(bundle, config) for name, bundle in bundles.items()}
    write_signature(folder, signature.model_copy(update={"parity": parity, "milliseconds": milliseconds}))
    if refusal:
        _say_what_it_costs(refusal, milliseconds["uncompiled"])


def _load_top(top: nn.Module, weights: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    try:
        top.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"the top of this version does not fit {checkpoint.folder}: {str(error).splitlines()[1].strip()}\n"
            "Export with the version and the config that the run was trained with."
        ) from error


def _input_schema(run: RunDirectory, config: Config) -> pa.Schema | None:
    """The columns that features read, each of the widest type that a training file has; None without a manifest."""
    manifest = read_manifest(run, config.data.train)
    if manifest is None or not manifest.schemas:
        return None
    names = FeatureTransforms(config.features, config.tables).columns
    return pa.schema([(name, widest([schema.field(name).type for schema in manifest.schemas])) for name in names])


def _write_programs(folder: Path, config: Config, top: nn.Module, mapped: MappedWeights) -> str | None:
    """Writes the exported program and the compiled one. Returns why there is no compiled one, if so."""
    groups = table_groups(config)
    columns = generate_columns(config, rows=8)
    program = export_program.Program(
        groups,
        config.input_layout,
        top,
        list(mapped.top),
        Criterion(config.tasks).predict,
    )
    inputs = program_inputs(columns, groups, columns.dense.shape[1])
    exported = export_program.export_program(program, mapped.tensors, inputs)
    export_program.save_exported(exported, folder / PROGRAM)
    return export_program.compile_program(exported, folder / COMPILED)


def _copy_vocabularies(features: Mapping[str, Feature], folder: Path) -> dict[str, Feature]:
    """The features, their vocabularies copied into the bundle."""
    paths = {}
    for name, path in files_of(features).items():
        (folder / "vocabulary").mkdir(exist_ok=True)
        paths[name] = f"vocabulary/{name}.txt"
        shutil.copyfile(path, folder / paths[name])
    return with_files(features, paths)


def _time(bundle: Bundle, config: Config) -> dict[str, float]:
    """Median milliseconds of one call by number of rows, from transformed columns to predictions."""
    medians = {}
    for rows in _TIMED_ROWS:
        columns, seconds = generate_columns(config, rows), []
        for _ in range(_TIMED_CALLS):
            started = time.perf_counter()
            bundle.score(columns)
            seconds.append(time.perf_counter() - started)
        medians[str(rows)] = round(1000 * statistics.median(seconds), 3)
    return medians


def _say_what_it_costs(refusal: str, milliseconds: Mapping[str, float]) -> None:
    here = ", ".join(f"{rows} rows {value:.2f} ms" for rows, value in milliseconds.items())
    log.warning(
        "%s: the bundle has the uncompiled program only. It takes here, a call: %s. Compiled, a small model "
        "took 1/%d of that for 1 row and 1/%.1f for 512. Install g++ and export again.",
        refusal,
        here,
        *_COMPILED_GAIN,
    )


def _move(draft: Path, target: Path) -> None:
    """Puts a finished bundle in its place. Between the two renames of a replacement there is none."""
    descriptor = os.open(draft / WEIGHTS, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if target.exists():
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        target.rename(old)
        draft.rename(target)
        shutil.rmtree(old)
    else:
        draft.rename(target)
