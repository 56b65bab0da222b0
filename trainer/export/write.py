"""From a run directory to a bundle that a server loads: `trainer.serving.signature` says what is in one.

A complete checkpoint is read without a process group, so a run of many GPUs is exported on any machine with the disk
for it. The bundle is written beside its place, loaded as a server would, held against the trainer's own modules, and
only then moved there.
"""

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from configs.errors import UserError
from configs.load import load_config
from configs.outputs import check_lasts, check_output, make_folder
from configs.schema import Config, Feature
from embeddings.features.feature_transforms import FeatureTransforms
from embeddings.features.files import files_of, with_files
from models.build import top_of
from trainer.checkpoint.files import Checkpoint
from trainer.data.dataset.schema_text import schema_to_text
from trainer.export.calibration import (
    Calibration,
    Labelled,
    fit,
    labelled_rows,
    report,
    reserved,
    weight_name,
)
from trainer.export.card import card
from trainer.export.checks import check_export
from trainer.export.choose import LATEST, choose_checkpoint
from trainer.export.describe import data_shares, identity_of, input_schema, source_of
from trainer.export.onnx import input_names
from trainer.export.parity import check_onnx_parity, check_parity, check_shared_parity, trainer_predictions
from trainer.export.sample import SampleRows, sample_rows
from trainer.export.small import compiled_for, settle_small, taking_all
from trainer.export.timing import call_milliseconds
from trainer.export.weights import fill, table_groups, write_weights
from trainer.export.write_programs import (
    DTYPES,
    Say,
    say_what_it_costs,
    write_portable,
    write_programs,
    write_shared,
    write_small,
)
from trainer.run.run_directory import RunDirectory, open_run
from trainer.run.versions import installed
from trainer.run.vocabularies import features_of
from trainer.serving.bundle import Bundle
from trainer.serving.signature import (
    CARD,
    ONNX,
    WARM_UP,
    WEIGHTS,
    Parity,
    Signature,
    TaskCalibration,
    is_bundle,
    write_signature,
)

_WARM_UP_ROWS = 64
_TIMED_ROWS = (1, 512)


def export(
    run_dir: str,
    out: str | None = None,
    *,
    overwrite: bool = False,
    checkpoint: str = LATEST,
    settings: Mapping[str, Any] | None = None,
    say: Say = lambda line: None,
) -> Path:
    """Writes the bundle of a run's checkpoint and returns its folder.

    Args:
        run_dir: what `train` wrote.
        out: a folder; RUN/export if left out.
        overwrite: replace a bundle that is there.
        checkpoint: "latest", "best", or a step.
        settings: keys of the section `export` that come before the run's.
        say: given a line when something begins that takes long.

    Raises:
        UserError: there is no run or no such checkpoint, or `out` is taken by something else, or does not last.
        ParityError: the bundle scores differently from the trainer; nothing is written.
    """
    run = open_run(run_dir)
    config = load_config(run.config)
    changed = config.export.model_copy(update=dict(settings or {}))
    config = config.model_copy(update={"features": features_of(run, config), "export": changed})
    check_export(config)
    chosen = choose_checkpoint(run, config.checkpoint, checkpoint)
    check_lasts(out or run_dir, "--out" if out else "RUN, or --out,")
    target = Path(out).expanduser().absolute() if out else run.export
    check_output(target, "--out", "folder", is_own=is_bundle, overwrite=overwrite)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    make_folder(draft, "--out", target)
    try:
        _write(draft, run, config, chosen, say)
        _move(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _write(folder: Path, run: RunDirectory, config: Config, checkpoint: Checkpoint, say: Say) -> None:
    groups = table_groups(config, config.export.tables)
    schema = input_schema(run, config)
    sample = sample_rows(config, FeatureTransforms(config.features, config.tables), schema)
    labelled = labelled_rows(config, sample.data if sample.is_validation else None, sample.file)
    kept, dtype, further = sample.kept(config), DTYPES[config.export.precision], reserved(config.export.calibration)
    say(f"copying the weights of step {checkpoint.step:,}")
    stored = write_weights(folder / WEIGHTS, config, groups, checkpoint, dtype, kept, further)
    top = top_of(config).eval()
    _load_top(top, stored.top, checkpoint)
    calibrations, calibration_reports = _calibrate(folder, config, kept, top, sample, labelled)
    compiled, refusal = write_programs(folder, config, top, groups, stored, say)
    small = write_small(folder, config, top, groups, stored, say)
    shared = write_shared(folder, config, top, groups, stored, say)
    features = _copy_vocabularies(config.features, folder)
    if config.export.format == "onnx":
        write_portable(folder, config, top, groups, stored)
    if sample.data is not None:
        names = FeatureTransforms(config.features, config.tables).columns
        pq.write_table(sample.data.select(names).slice(0, _WARM_UP_ROWS), folder / WARM_UP)
    signature = Signature(
        tasks=tuple(config.tasks),
        scores=config.export.scores,
        calibration=calibration_reports,
        features=features,
        tables={name: config.tables[name] for name in stored.table_digests},
        columns={} if schema is None else {field.name: str(field.type) for field in schema},
        arrow_schema=None if schema is None else schema_to_text(schema),
        dense_width=config.input_layout.dense_width,
        groups=tuple(groups),
        weights=tuple(stored.weights),
        table_digests=stored.table_digests,
        identity=identity_of(folder, features, groups, stored),
        device=config.export.device,
        precision=config.export.precision,
        compiled=tuple(compiled),
        small=small,
        shared=tuple(shared),
        source=source_of(run, config, checkpoint),
        shares=data_shares(config, sample),
        versions=installed() | {"python": platform.python_version()},
    )
    write_signature(folder, signature)
    say("comparing the bundle with the trainer, and timing it")
    signature = _checked(folder, signature, config, kept, top, sample, calibrations)
    write_signature(folder, signature)
    example = None if sample.data is None else sample.data.select(list(signature.columns)).slice(0, 1)
    inputs = input_names(groups, signature.dense_width) if config.export.format == "onnx" else None
    (folder / CARD).write_text(card(signature, example, _answer(folder, example), inputs), "utf-8")
    write_signature(folder, signature)
    if refusal:
        say_what_it_costs(refusal, signature.milliseconds["graph"])


def _checked(
    folder: Path,
    signature: Signature,
    config: Config,
    kept: Mapping[str, Any],
    top: nn.Module,
    sample: SampleRows,
    calibrations: Mapping[str, Calibration],
) -> Signature:
    """The signature with what was found when each program of the bundle was loaded, compared and timed."""
    signature = settle_small(folder, signature, config)
    parities, of_few, milliseconds = [], [], {}
    for instructions in (*(program.instructions for program in signature.compiled), None):
        write_signature(folder, compiled_for(signature, instructions))
        bundle = Bundle(folder, verify=False)
        times = call_milliseconds(bundle, config, _TIMED_ROWS)
        milliseconds[instructions or "graph"] = {str(n): round(ms, 3) for n, ms in times.items()}
        if signature.small:
            few, bundle = taking_all(bundle), taking_all(bundle, rows=0)
            of_few.append(check_parity(few, config, kept, top, sample, calibrations, precision="fp32"))
        parity = check_parity(bundle, config, kept, top, sample, calibrations)
        parities.append(check_shared_parity(bundle, config, parity, sample, calibrations))
    if (folder / ONNX).exists():
        parities[-1] = check_onnx_parity(folder, bundle, config, parities[-1], sample, calibrations)
    parity, small = _worst(parities), signature.small
    if small:
        small = small.model_copy(update={"parity": _worst(of_few)})
    return signature.model_copy(update={"parity": parity, "small": small, "milliseconds": milliseconds})


def _answer(folder: Path, example: pa.Table | None) -> list[float] | None:
    """What the bundle says of the first row."""
    if example is None or not example.num_rows:
        return None
    return Bundle(folder, verify=False).predict(example)[0].tolist()


def _worst(parities: Sequence[Parity]) -> Parity:
    return max(parities, key=lambda found: found.largest_difference)


def _calibrate(
    folder: Path,
    config: Config,
    kept: Mapping[str, Any],
    top: nn.Module,
    sample: SampleRows,
    labelled: Mapping[str, Labelled],
) -> tuple[dict[str, Calibration], dict[str, TaskCalibration]]:
    """Fits what `export.calibration` asks for to the trainer's predictions, and puts it into the weights."""
    if not labelled:
        return {}, {}
    assert sample.columns is not None
    outputs = trainer_predictions(config, kept, top, sample.columns)
    fitted, reports = {}, {}
    for name, rows in labelled.items():
        place = list(config.tasks).index(name)
        predictions, logits = (matrix[rows.rows, place].astype("float64") for matrix in outputs)
        fitted[name] = fit(config.export.calibration[name], name, predictions, logits, rows)
        reports[name] = report(fitted[name], predictions, logits, rows)
    fill(folder / WEIGHTS, {weight_name(name): torch.from_numpy(one.numbers) for name, one in fitted.items()})
    return fitted, reports


def _load_top(top: nn.Module, weights: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    try:
        top.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"the top of this version does not fit {checkpoint.folder}: {str(error).splitlines()[1].strip()}\n"
            "Export with the version and the config that the run was trained with."
        ) from error


def _copy_vocabularies(features: Mapping[str, Feature], folder: Path) -> dict[str, Feature]:
    """The features, their vocabularies copied into the bundle."""
    paths = {}
    for name, path in files_of(features).items():
        (folder / "vocabulary").mkdir(exist_ok=True)
        paths[name] = f"vocabulary/{name}.txt"
        shutil.copyfile(path, folder / paths[name])
    return with_files(features, paths)


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
